"""Which metrics there can be of two sides, known before a sample is drawn or a feature computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from diffcli.commands.compared_set import ComparedSet
from diffcli.commands.image_metric_names import INCEPTION, AskedMetric, Family, metric_name
from diffcli.errors import UsageError
from diffcli.evaluation.features import FeatureExtractor
from diffcli.evaluation.infinity import rows_needed
from diffcli.records.image_evaluations import MetricSettings, SkippedMetric

NO_SAMPLE_IMAGES = "the samples are statistics, and no images"
NO_REFERENCE_IMAGES = "the reference holds statistics, and no images"
# of a covariance, of a kernel distance, and of the nearest image and the next
_PAIR = 2


@dataclass(frozen=True, kw_only=True)
class SideFacts:
    """What a side has: images that are looked at, 0 for statistics alone; which statistics were published.

    pooled, spatial: None where none were, and the images decide.
    """

    images: int
    pooled: bool | None = None
    spatial: bool | None = None


@dataclass(frozen=True, kw_only=True)
class FeasibleMetrics:
    """What can be computed of all that was asked for, and why the rest cannot."""

    metrics: tuple[AskedMetric, ...]
    skipped: tuple[SkippedMetric, ...]


def side_facts(side: ComparedSet, count: int, extractor: FeatureExtractor) -> SideFacts:
    """Of a side, `count` of whose images are looked at."""
    published = side.published_for(extractor.name)
    if published is None:
        return SideFacts(images=count)
    return SideFacts(images=count, pooled=published.pooled is not None, spatial=published.spatial is not None)


@dataclass(frozen=True, kw_only=True, eq=False)
class MetricRequirements:
    """Two sides, reference: None where nothing but the samples counts, and what their features come from."""

    samples: SideFacts
    reference: SideFacts | None
    extractor: FeatureExtractor
    settings: MetricSettings

    def feasible(self, asked: Iterable[AskedMetric]) -> FeasibleMetrics:
        """What can be computed; UsageError with the reasons if that is nothing."""
        metrics, skipped = [], []
        for metric in asked:
            reason = self._obstacle(metric)
            if reason is None:
                metrics.append(metric)
            else:
                skipped.append(SkippedMetric(name=metric.text, reason=reason))
        if not metrics:
            raise UsageError(
                "nothing that is asked for can be computed: "
                + "; ".join(f"{each.name}: {each.reason}" for each in skipped),
                where="--metrics",
                remedy="ask for other metrics, or give other --features, another --reference or more images",
            )
        return FeasibleMetrics(metrics=tuple(metrics), skipped=tuple(skipped))

    def _obstacle(self, asked: AskedMetric) -> str | None:
        """Why a metric cannot be computed, None if it can."""
        name, family = self.extractor.name, asked.family
        if asked.of_inception and name != INCEPTION:
            return (
                f"it is of Inception's features; of these it is {metric_name(family, name)}: "
                f"--metrics {family}"
            )
        if family == "is" and not self._knows_classes:
            return f"{name} knows no classes"
        if family == "sfd" and self.extractor.spatial_dimensions is None:
            return f"{name} has no spatial features"
        return self._missing_in_samples(family) or self._missing_in_reference(family)

    def _missing_in_samples(self, family: Family) -> str | None:
        if family in ("fd", "sfd"):
            return _no_moments(self.samples, family, NO_SAMPLE_IMAGES, "samples")
        least = {
            **dict.fromkeys(("precision", "recall"), self.settings.neighbours + 1),
            "kd": _PAIR,
            "fd_infinity": rows_needed(self.extractor.dimensions),
        }.get(family, 1)
        return _too_few(self.samples.images, least, NO_SAMPLE_IMAGES, "samples")

    def _missing_in_reference(self, family: Family) -> str | None:
        if family == "is":
            return None
        assert self.reference is not None, "whatever is not of the samples alone has one"
        if family in ("fd", "sfd", "fd_infinity"):
            return _no_moments(self.reference, family, NO_REFERENCE_IMAGES, "images of the reference")
        least = {
            **dict.fromkeys(("precision", "recall"), self.settings.neighbours + 1),
            **dict.fromkeys(("density", "coverage"), self.settings.density_neighbours + 1),
        }.get(family, _PAIR)
        return _too_few(self.reference.images, least, NO_REFERENCE_IMAGES, "images of the reference")

    @property
    def _knows_classes(self) -> bool:
        return self.extractor.probabilities(torch.zeros(1, self.extractor.dimensions)) is not None


def _no_moments(side: SideFacts, family: Family, no_images: str, called: str) -> str | None:
    published = side.spatial if family == "sfd" else side.pooled
    if published is None:
        return _too_few(side.images, _PAIR, no_images, called, whose="a covariance")
    return None if published else f"the statistics of the {called} have none for it"


def _too_few(images: int, least: int, no_images: str, called: str, whose: str = "it") -> str | None:
    if images >= least:
        return None
    return f"{whose} needs {least:,} images or more, there are {images:,} {called}" if images else no_images
