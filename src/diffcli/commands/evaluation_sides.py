"""The two sides of a comparison: how many images of each count, and what a reader should know of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from diffcli.commands.compared_set import ComparedSet, ImageShape
from diffcli.commands.image_metric_names import INCEPTION
from diffcli.data.image_sets import ImageSet
from diffcli.errors import UsageError
from diffcli.records.image_evaluations import EvaluatedSet, ExtractorFacts, Metric


def check_sizes(samples: ImageShape | None, reference: ComparedSet | None, features: str) -> None:
    """UsageError where features of images of another size would be other features."""
    shape = None if reference is None else reference.shape
    if features == INCEPTION or None in (samples, shape) or samples == shape:
        return
    raise UsageError(
        f"the samples are {samples}, the reference {shape}",
        where="--reference",
        remedy=f"give a reference of that size; --features {INCEPTION} resizes both",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Sides:
    """Samples and a reference, None where only samples count; of each so many are wanted, None for all."""

    samples: ComparedSet
    reference: ComparedSet | None
    samples_wanted: int | None
    references_wanted: int | None

    @property
    def count(self) -> int:
        """Samples that are looked at; UsageError when there are fewer than are wanted."""
        total, wanted = self.samples.total, self.samples_wanted
        if wanted is not None and wanted > total:
            raise UsageError(
                f"--num is {wanted}, and there are {total} images",
                where=str(self.samples.described(0).location),
                remedy=f"give at most {total}, or leave --num out" if total else "leave --num out",
            )
        return total if wanted is None else wanted

    @property
    def reference_images(self) -> ImageSet | None:
        """The images of the reference, if it has any."""
        return None if self.reference is None else self.reference.images

    @property
    def reference_count(self) -> int:
        """Images of the reference that are looked at."""
        total, wanted = 0 if self.reference is None else self.reference.total, self.references_wanted
        return total if wanted is None else min(total, wanted)

    def described_reference(self) -> EvaluatedSet | None:
        """What a record says of the reference."""
        return None if self.reference is None else self.reference.described(self.reference_count)

    def warnings(self, extractor: ExtractorFacts, metrics: Iterable[Metric]) -> tuple[str, ...]:
        """What a reader of the numbers should know."""
        return tuple(self._warnings(extractor, tuple(metrics)))

    def _warnings(self, extractor: ExtractorFacts, metrics: tuple[Metric, ...]) -> Iterator[str]:
        if extractor.name == INCEPTION and not extractor.published:
            yield (
                "the file of Inception's weights is not pytorch-fid's, the only one whose digest is known: "
                "numbers compare with published ones only if it holds the same weights, as OpenAI's should"
            )
        frechet = [metric for metric in metrics if metric.name.startswith(("fid", "sfid", "fd"))]
        if any(metric.samples is not None and metric.samples <= extractor.dimensions for metric in frechet):
            yield (
                f"{self.count} samples do not determine a covariance of {extractor.dimensions} features: the "
                "Frechet distance is far too large, and compares only with others of as many"
            )
        if any(
            metric.references is not None and metric.references <= extractor.dimensions for metric in frechet
        ):
            yield (
                f"{self.reference_count} images of the reference do not determine a covariance of "
                f"{extractor.dimensions} features: the Frechet distance is too large, and compares only with "
                "others beside the same reference"
            )
        if any(metric.name.startswith("is") for metric in metrics) and self._sorted_by_class():
            yield "the samples lie sorted by class, which lowers the Inception Score"
        mine, other = self.samples.shape, None if self.reference is None else self.reference.shape
        if mine is not None and other is not None and mine.height != other.height:
            yield (
                f"the samples have {mine.height} pixels a side and the reference {other.height}; the "
                "extractor resizes both, which papers do not do"
            )

    def _sorted_by_class(self) -> bool:
        images = self.samples.images
        if images is None or len(images.dataset.class_names) < 2:
            return False
        labels = images.dataset.labels(np.arange(self.count))
        return bool((np.diff(labels) >= 0).all()) and bool(labels[0] != labels[-1])
