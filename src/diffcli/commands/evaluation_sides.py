"""The two sides of a comparison: how many images of each count, and what a reader should know of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from diffcli.commands.evaluation_reference import Reference
from diffcli.commands.image_metric_names import INCEPTION
from diffcli.data.dataset import Dataset
from diffcli.data.image_sets import ImageSet
from diffcli.errors import UsageError
from diffcli.records.image_evaluations import EvaluatedSet, ExtractorFacts, Metric


@dataclass(frozen=True, kw_only=True)
class ImageShape:
    """Of each image of a set, pixels."""

    height: int
    width: int
    channels: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.channels}"


def shape_of(dataset: Dataset) -> ImageShape:
    """Of its images."""
    return ImageShape(height=dataset.height, width=dataset.width, channels=dataset.channels)


def check_sizes(samples: ImageShape, reference: Reference | None, features: str) -> None:
    """UsageError where features of images of another size would be other features."""
    images = None if reference is None else reference.images
    if features == INCEPTION or images is None or samples == shape_of(images.dataset):
        return
    raise UsageError(
        f"the samples are {samples}, the reference {shape_of(images.dataset)}",
        where="--reference",
        remedy=f"give a reference of that size; --features {INCEPTION} resizes both",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Sides:
    """Samples and a reference, None where only samples count; of each so many are wanted, None for all."""

    samples: ImageSet
    reference: Reference | None
    samples_wanted: int | None
    references_wanted: int | None

    @property
    def count(self) -> int:
        """Samples that are looked at; UsageError when there are fewer than are wanted."""
        total, wanted = self.samples.dataset.count, self.samples_wanted
        if wanted is not None and wanted > total:
            raise UsageError(
                f"--num is {wanted}, and there are {total} images in {self.samples.dataset.location}",
                remedy=f"give at most {total}, or leave --num out",
            )
        return total if wanted is None else wanted

    @property
    def reference_images(self) -> ImageSet | None:
        """The images of the reference, if it has any."""
        return None if self.reference is None else self.reference.images

    @property
    def reference_count(self) -> int:
        """Images of the reference that are looked at."""
        images, wanted = self.reference_images, self.references_wanted
        total = 0 if images is None else images.dataset.count
        return total if wanted is None else min(total, wanted)

    def described_reference(self) -> EvaluatedSet | None:
        """What a record says of the reference."""
        return None if self.reference is None else self.reference.described(self.reference_count)

    def warnings(self, extractor: ExtractorFacts, metrics: Iterable[Metric]) -> tuple[str, ...]:
        """What a reader of the numbers should know."""
        return tuple(self._warnings(extractor, tuple(metric.name for metric in metrics)))

    def _warnings(self, extractor: ExtractorFacts, names: tuple[str, ...]) -> Iterator[str]:
        if extractor.name == INCEPTION and not extractor.published:
            yield "these are not the published weights of Inception: the numbers compare with no others"
        frechet = any(name.startswith(("fid", "sfid", "fd")) for name in names)
        if frechet and self.count <= extractor.dimensions:
            yield (
                f"{self.count} samples do not determine a covariance of {extractor.dimensions} features: the "
                "Frechet distance is far too large, and compares only with others of as many"
            )
        if any(name.startswith("is") for name in names) and self._sorted_by_class():
            yield "the samples lie sorted by class, which lowers the Inception Score"
        images, size = self.reference_images, self.samples.dataset.height
        if images is not None and images.dataset.height != size:
            yield (
                f"the samples have {size} pixels a side and the reference {images.dataset.height}; the "
                "extractor resizes both, which papers do not do"
            )

    def _sorted_by_class(self) -> bool:
        dataset = self.samples.dataset
        if len(dataset.class_names) < 2:
            return False
        labels = dataset.labels(np.arange(self.count))
        return bool((np.diff(labels) >= 0).all()) and bool(labels[0] != labels[-1])
