"""Metrics of two sets of images from their statistics, once `MetricRequirements` has let them through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffcli.commands.image_metric_names import AskedMetric, Family, metric_name
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
    SpreadKind,
)

_PROBABILITIES_AT_ONCE = 1024
# Yoon et al. 2023, section 3: a sample this much nearer to one training image than to any other is a copy;
# and so is one that is a training image, however often that occurs
_COPY_RATIO = 1 / 3
_PAIRS_KEPT = 24
_KNOWN = "`MetricRequirements` lets nothing through that the sides do not have"


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

    def measured(self, asked: Iterable[AskedMetric], go_on: Callable[[], None]) -> tuple[Metric, ...]:
        """The metrics, which sides of these kinds have, in the order in which they are asked for.

        go_on: called before each, and may raise.
        """
        metrics: list[Metric] = []
        for metric in asked:
            go_on()
            metrics += self._measured(metric)
        return tuple(metrics)

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
            "sfd": lambda: [self._frechet("sfd", self.samples.spatial, self._reference.spatial)],
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
        assert samples is not None, _KNOWN
        assert reference is not None, _KNOWN
        return Metric(
            name=self._name(family),
            value=frechet_distance(samples, reference),
            # published moments do not say of how many images they are
            samples=samples.count or None,
            references=reference.count or None,
        )

    def _inception_score(self) -> Metric:
        score = InceptionScore(self.settings.score_split)
        for rows in torch.split(self._sample_rows, _PROBABILITIES_AT_ONCE):
            probabilities = self.extractor.probabilities(rows)
            assert probabilities is not None, _KNOWN
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
        assert reference is not None, _KNOWN
        found = frechet_at_infinity(self._sample_rows, reference, self.settings.seed)
        return self._metric("fd_infinity", found.value, reference.count or None)

    def _nearest(self) -> Iterator[Metric]:
        reference = self._reference.pooled
        assert self.neighbours is not None, _KNOWN
        count = None if reference is None else reference.count or None
        first, second = self.neighbours.distances.unbind(1)
        copied = (first < _COPY_RATIO * second) | (first == 0)
        yield self._metric("nearest", float(first.median()), count)
        yield self._metric("memorized", float(copied.double().mean()), count)

    @property
    def _sample_rows(self) -> Tensor:
        assert self.samples.rows is not None, _KNOWN
        return self.samples.rows

    @property
    def _reference(self) -> SetStatistics:
        assert self.reference is not None, _KNOWN
        return self.reference

    @property
    def _reference_rows(self) -> Tensor:
        rows = self._reference.rows
        assert rows is not None, _KNOWN
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
