"""Every metric that was asked for, from the statistics of two sets of images; what cannot be is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffcli.commands.image_metric_names import AskedMetric, Family, metric_name
from diffcli.commands.metric_requirements import NO_REFERENCE_IMAGES, NO_SAMPLE_IMAGES
from diffcli.errors import UsageError
from diffcli.evaluation.features import FeatureExtractor
from diffcli.evaluation.frechet import frechet_distance
from diffcli.evaluation.inception_score import InceptionScore
from diffcli.evaluation.infinity import frechet_at_infinity
from diffcli.evaluation.kernel_distance import kernel_distance
from diffcli.evaluation.manifold import density_coverage, precision_recall
from diffcli.evaluation.moments import Moments
from diffcli.evaluation.nearest import Neighbours
from diffcli.evaluation.set_statistics import SetStatistics
from diffcli.evaluation.spread import Spread
from diffcli.records.image_evaluations import (
    Metric,
    MetricSettings,
    MetricSpread,
    NearestPair,
    SkippedMetric,
    SpreadKind,
)

_PROBABILITIES_AT_ONCE = 1024
# Yoon et al. 2023, section 3: a sample this much nearer to one training image than to any other is a copy;
# and so is one that is a training image, however often that occurs
_COPY_RATIO = 1 / 3
_PAIRS_KEPT = 24


@dataclass(frozen=True, kw_only=True)
class MeasuredMetrics:
    """What could be computed, and what not."""

    metrics: tuple[Metric, ...]
    skipped: tuple[SkippedMetric, ...]


class _NotComputableError(Exception):
    """Why a metric cannot be computed of these sets."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageComparison:
    """Samples and a reference by what one extractor made of them.

    reference: None where nothing but the samples counts; neighbours: the two reference images nearest to each
    sample, None unless they were looked for.
    """

    samples: SetStatistics
    reference: SetStatistics | None
    neighbours: Neighbours | None
    extractor: FeatureExtractor
    settings: MetricSettings

    def measured(self, asked: Iterable[AskedMetric], go_on: Callable[[], None]) -> MeasuredMetrics:
        """The metrics, of those that sides of these kinds have, in the order in which they are asked for.

        go_on: called before each, and may raise.
        """
        metrics: list[Metric] = []
        skipped: list[SkippedMetric] = []
        for metric in asked:
            go_on()
            try:
                metrics += self._measured(metric)
            except _NotComputableError as error:
                skipped.append(SkippedMetric(name=metric.text, reason=str(error)))
            except UsageError as error:
                # of too few images
                skipped.append(SkippedMetric(name=metric.text, reason=error.what))
        return MeasuredMetrics(metrics=tuple(metrics), skipped=tuple(skipped))

    def nearest_pairs(self) -> tuple[NearestPair, ...]:
        """The samples closest to a reference image, closest first; () unless they were looked for."""
        if self.neighbours is None:
            return ()
        distances = self.neighbours.distances[:, 0]
        closest = distances.argsort(stable=True)[:_PAIRS_KEPT].tolist()
        return tuple(
            NearestPair(
                sample=sample,
                training=int(self.neighbours.indices[sample, 0]),
                distance=float(distances[sample]),
            )
            for sample in closest
        )

    def _measured(self, asked: AskedMetric) -> tuple[Metric, ...]:
        measures: dict[Family, Callable[[], Iterable[Metric]]] = {
            "fd": lambda: [self._frechet("fd", self.samples.pooled, self._reference.pooled)],
            "sfd": lambda: [self._frechet("sfd", self._spatial(), self._reference.spatial)],
            "is": lambda: [self._inception_score()],
            "precision": lambda: self._precision_recall[:1],
            "recall": lambda: self._precision_recall[1:],
            "density": lambda: self._density_coverage[:1],
            "coverage": lambda: self._density_coverage[1:],
            "kd": lambda: [self._kernel_distance()],
            "fd_infinity": lambda: [self._frechet_at_infinity()],
            "nearest": self._nearest,
        }
        return tuple(measures[asked.family]())

    def _frechet(self, family: str, samples: Moments | None, reference: Moments | None) -> Metric:
        if samples is None or reference is None:
            raise _NotComputableError(f"there are no statistics of {self.extractor.name} for it")
        value = frechet_distance(samples, reference)
        return Metric(
            name=self._name(family),
            value=value,
            # published moments do not say of how many images they are
            samples=samples.count or None,
            references=reference.count or None,
        )

    def _spatial(self) -> Moments:
        if self.samples.spatial is not None:
            return self.samples.spatial
        if self.samples.rows is None:
            raise _NotComputableError("the statistics of the samples have none for it")
        raise _NotComputableError(f"{self.extractor.name} has no spatial features")

    def _inception_score(self) -> Metric:
        score = InceptionScore(self.settings.score_split)
        for rows in torch.split(self._sample_rows, _PROBABILITIES_AT_ONCE):
            probabilities = self.extractor.probabilities(rows)
            if probabilities is None:
                raise _NotComputableError(f"{self.extractor.name} knows no classes")
            score.add(probabilities)
        found = score.score()
        return self._metric("is", found.mean, None, _spread(found, "parts"))

    @cached_property
    def _precision_recall(self) -> tuple[Metric, Metric]:
        settings, reference = self.settings, self._reference_rows
        found = precision_recall(
            reference, self._sample_rows, k=settings.neighbours, arithmetic=settings.distances
        )
        return (
            self._metric("precision", found.precision, len(reference)),
            self._metric("recall", found.recall, len(reference)),
        )

    @cached_property
    def _density_coverage(self) -> tuple[Metric, Metric]:
        reference = self._reference_rows
        found = density_coverage(reference, self._sample_rows, k=self.settings.density_neighbours)
        return (
            self._metric("density", found.density, len(reference)),
            self._metric("coverage", found.coverage, len(reference)),
        )

    def _kernel_distance(self) -> Metric:
        settings, reference = self.settings, self._reference_rows
        found = kernel_distance(
            self._sample_rows,
            reference,
            settings.seed,
            subsets=settings.kernel_subsets,
            subset_size=settings.kernel_subset_size,
        )
        return self._metric("kd", found.mean, len(reference), _spread(found, "subsets"))

    def _frechet_at_infinity(self) -> Metric:
        reference = self._reference.pooled
        if reference is None:
            raise _NotComputableError(f"the reference has no statistics of {self.extractor.name}")
        found = frechet_at_infinity(self._sample_rows, reference, self.settings.seed)
        return self._metric("fd_infinity", found.value, reference.count or None)

    def _nearest(self) -> Iterator[Metric]:
        reference = self._reference.pooled
        if self.neighbours is None:
            raise _NotComputableError(NO_SAMPLE_IMAGES if self.samples.rows is None else NO_REFERENCE_IMAGES)
        count = None if reference is None else reference.count or None
        first, second = self.neighbours.distances.unbind(1)
        copied = (first < _COPY_RATIO * second) | (first == 0)
        yield self._metric("nearest", float(first.median()), count)
        yield self._metric("memorized", float(copied.double().mean()), count)

    @property
    def _sample_rows(self) -> Tensor:
        if self.samples.rows is None:
            raise _NotComputableError(NO_SAMPLE_IMAGES)
        return self.samples.rows

    @property
    def _reference(self) -> SetStatistics:
        assert self.reference is not None, "whatever is not of the samples alone has one"
        return self.reference

    @property
    def _reference_rows(self) -> Tensor:
        rows = self._reference.rows
        if rows is None:
            raise _NotComputableError(NO_REFERENCE_IMAGES)
        return rows

    def _name(self, family: str) -> str:
        return metric_name(family, self.extractor.name)

    def _metric(
        self, family: str, value: float, references: int | None, spread: MetricSpread | None = None
    ) -> Metric:
        return Metric(
            name=self._name(family),
            value=value,
            samples=len(self._sample_rows),
            references=references,
            spread=spread,
        )


def _spread(found: Spread, over: SpreadKind) -> MetricSpread | None:
    """How the value scatters; None of a single part or subset."""
    return None if found.std is None else MetricSpread(over=over, count=found.count, deviation=found.std)
