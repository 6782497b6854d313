"""One side of a comparison: images, published statistics, or both."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from diffcli.commands.image_metric_names import INCEPTION
from diffcli.data.dataset import Dataset
from diffcli.data.image_sets import ImageSet, open_image_set
from diffcli.data.reference_statistics import MeanAndCovariance, PublishedStatistics, read_statistics
from diffcli.errors import UsageError
from diffcli.evaluation.moments import Moments
from diffcli.evaluation.set_statistics import SetStatistics
from diffcli.images.decode import printable
from diffcli.records.image_evaluations import EvaluatedSet

_ARCHIVE_SUFFIX = ".npz"


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


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedSet:
    """Images, statistics of Inception's features, or both: one of them is None."""

    images: ImageSet | None
    statistics: PublishedStatistics | None

    @property
    def shape(self) -> ImageShape | None:
        """Of its images, if it has any."""
        return None if self.images is None else shape_of(self.images.dataset)

    @property
    def total(self) -> int:
        """Its images; 0 for statistics alone."""
        return 0 if self.images is None else self.images.dataset.count

    def cut_to(self, count: int) -> ComparedSet:
        """The same of its first images: what was published is of all of them."""
        if self.images is None or count == self.total:
            return self
        return dataclasses.replace(self, statistics=None)

    def described(self, count: int) -> EvaluatedSet:
        """What a record says of it, of which `count` images were looked at."""
        if self.statistics is None:
            assert self.images is not None
            return self.images.described(count)
        shape = self.shape or ImageShape(height=0, width=0, channels=0)
        return EvaluatedSet(
            kind="statistics",
            location=self.statistics.location.absolute(),
            count=count,
            total=self.total,
            height=shape.height,
            width=shape.width,
            channels=shape.channels,
            content_hash=self.statistics.sha256,
            weak_hash=False,
            identity=self.statistics.sha256,
        )

    def published_for(self, extractor: str) -> SetStatistics | None:
        """What its statistics say, of an unknown number of images; None where they are of other features."""
        if self.statistics is None or extractor != INCEPTION:
            return None
        return SetStatistics(
            pooled=_moments(self.statistics.pooled), spatial=_moments(self.statistics.spatial), rows=None
        )


@contextlib.contextmanager
def open_compared_set(path: Path, *, split: str | None, option: str, scratch: Path) -> Iterator[ComparedSet]:
    """What lies at a path; arguments are those of `open_image_set`.

    Errors: those of `open_image_set` and `read_statistics`, UsageError for an archive of something else.
    """
    statistics = read_statistics(path) if path.is_file() and path.suffix == _ARCHIVE_SUFFIX else None
    with contextlib.ExitStack() as stack:
        images = None
        if statistics is None or statistics.has_images:
            images = stack.enter_context(open_image_set(path, split=split, option=option, scratch=scratch))
        if statistics is not None and statistics.pooled is None:
            statistics = None
        if images is None and statistics is None:
            raise UsageError(
                f"{printable(path)} holds neither images nor statistics",
                where=option,
                remedy="give an .npz with arr_0, or with mu and sigma",
            )
        yield ComparedSet(images=images, statistics=statistics)


def _moments(found: MeanAndCovariance | None) -> Moments | None:
    if found is None:
        return None
    mean, covariance = torch.from_numpy(found.mean), torch.from_numpy(found.covariance)
    return Moments(count=0, mean=mean, covariance=covariance)
