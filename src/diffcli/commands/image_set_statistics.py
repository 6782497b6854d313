"""The statistics of both sides of a comparison, by one extractor, from features that all processes make."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from diffcli import durable
from diffcli.commands.compared_set import ComparedSet
from diffcli.commands.feature_extraction import Extraction, FeatureParts
from diffcli.commands.image_metric_names import Family
from diffcli.commands.sampling_process import SamplingProcess
from diffcli.commands.statistics_cache import cache_file, read_cached, write_cached
from diffcli.data.dataset import Dataset
from diffcli.data.image_sets import ImageSet
from diffcli.evaluation.features import FeatureExtractor, Features
from diffcli.evaluation.nearest import Neighbours, nearest_neighbours
from diffcli.evaluation.set_statistics import SetStatistics, StatisticsBuilder, evenly_spaced

# as the published reference batches hold
REFERENCE_ROWS = 10_000
# the nearest image, and the next to compare its distance with
_NEAREST = 2
_ROWS_AT_ONCE = 2048
_OF_ROWS: frozenset[Family] = frozenset({"precision", "recall", "density", "coverage", "kd", "nearest"})
_OF_MOMENTS: frozenset[Family] = frozenset({"fd", "sfd"})
NOTHING_KNOWN = SetStatistics(pooled=None, spatial=None, rows=None)

Made = TypeVar("Made")


class KnownStatistics:
    """Those of a reference, once an evaluation has worked them out for others that ask for the same of it."""

    def __init__(self) -> None:
        self.found: SetStatistics | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class SetMeasurement:
    """Measures sets of images alike.

    families: what is to be computed of them; directory: where features lie while they are made.
    """

    extractor: FeatureExtractor
    families: frozenset[Family]
    batch_size: int
    directory: Path
    process: SamplingProcess

    def samples(self, samples: ComparedSet, count: int) -> SetStatistics:
        """Of the first `count` images, the features of all kept, or as published.

        In the first process; nothing in others.
        """
        published = samples.published_for(self.extractor.name)
        if samples.images is None or (published is not None and self.families <= _OF_MOMENTS):
            return published or NOTHING_KNOWN
        extraction = self._extraction(samples.images.dataset, torch.arange(count))
        parts = self._computed(extraction, "samples")
        found = self._in_first(lambda: self._taken_in(extraction, extraction.indices, parts), NOTHING_KNOWN)
        return _as_published(found, published)

    def reference(
        self, reference: ComparedSet, count: int, samples: SetStatistics, known: KnownStatistics
    ) -> tuple[SetStatistics, Neighbours | None]:
        """Of `count` images spread over the reference, or as published; and the samples' nearest, if asked.

        What is worked out of a prepared dataset is kept beside it, and in `known`, which takes it to the next
        evaluation. In the first process; nothing in others.
        """
        if known.found is not None and "nearest" not in self.families:
            return known.found, None
        known.found, neighbours = self._measured(reference, count, samples)
        return known.found, neighbours

    def _measured(
        self, reference: ComparedSet, count: int, samples: SetStatistics
    ) -> tuple[SetStatistics, Neighbours | None]:
        published = reference.published_for(self.extractor.name)
        images = reference.images
        if images is None or (published is not None and not self.families & _OF_ROWS):
            return published or NOTHING_KNOWN, None
        extraction = self._extraction(images.dataset, evenly_spaced(images.dataset.count, count))
        found, neighbours = self._of_images(images, extraction, samples)
        return _as_published(found, published), neighbours

    def forget(self) -> None:
        """Delete the features, once the numbers stand."""
        durable.remove_tree(self.directory)

    def _of_images(
        self, images: ImageSet, extraction: Extraction, samples: SetStatistics
    ) -> tuple[SetStatistics, Neighbours | None]:
        workers = self.process.workers
        kept = cache_file(images, extraction.digest(self.process))
        nearest = "nearest" in self.families
        cached = read_cached(kept) if kept is not None and workers.is_first and not nearest else None
        if workers.first_decides(lambda: cached is not None):
            return cached or NOTHING_KNOWN, None
        parts = self._computed(extraction, "reference")
        rows = evenly_spaced(len(extraction.indices), REFERENCE_ROWS)
        found = self._in_first(lambda: self._taken_in(extraction, rows, parts), NOTHING_KNOWN)
        if kept is not None and workers.is_first:
            write_cached(kept, found)
        if not nearest:
            return found, None
        return found, self._in_first(lambda: self._neighbours(samples, extraction, parts), None)

    def _extraction(self, dataset: Dataset, indices: Tensor) -> Extraction:
        return Extraction(
            dataset=dataset,
            indices=indices,
            extractor=self.extractor,
            spatial="sfd" in self.families,
            batch_size=self.batch_size,
        )

    def _computed(self, extraction: Extraction, name: str) -> FeatureParts:
        self.process.begin(f"{name}: features")
        return extraction.computed(self._parts_directory(name), self.process)

    def _parts_directory(self, name: str) -> Path:
        return self.directory / name

    def _in_first(self, make: Callable[[], Made], otherwise: Made) -> Made:
        """What the first process makes, and `otherwise` in others; its errors are those of all."""
        made: list[Made] = []
        self.process.workers.first_decides(lambda: made.append(make()))
        return made[0] if made else otherwise

    def _taken_in(self, extraction: Extraction, rows: Tensor, parts: FeatureParts) -> SetStatistics:
        builder = StatisticsBuilder(
            dimensions=extraction.extractor.dimensions,
            spatial_dimensions=extraction.spatial_dimensions,
            rows=rows,
        )
        for features in self._watched(parts.read()):
            builder.add(features)
        return builder.statistics()

    def _neighbours(
        self, samples: SetStatistics, extraction: Extraction, parts: FeatureParts
    ) -> Neighbours | None:
        """The nearest reference images of each sample, by their numbers in their dataset."""
        if samples.rows is None:
            return None
        stored = _regrouped(features.pooled for features in self._watched(parts.read()))
        found = nearest_neighbours(samples.rows, stored, _NEAREST)
        return dataclasses.replace(found, indices=extraction.indices[found.indices])

    def _watched(self, batches: Iterator[Features]) -> Iterator[Features]:
        """The batches, with a look at the signals before each."""
        for features in batches:
            self.process.heed_stop("the features are kept")
            yield features


def _as_published(found: SetStatistics, published: SetStatistics | None) -> SetStatistics:
    """With published moments in place of those of the images that stand beside them."""
    if published is None:
        return found
    return dataclasses.replace(found, pooled=published.pooled, spatial=published.spatial)


def needs_reference(families: Iterable[Family]) -> bool:
    """Whether anything but the samples counts."""
    return any(family != "is" for family in families)


def _regrouped(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same rows in fewer batches: each of them is compared with all samples."""
    waiting: list[Tensor] = []
    for batch in batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= _ROWS_AT_ONCE:
            yield torch.cat(waiting)
            waiting = []
    if waiting:
        yield torch.cat(waiting)
