"""What samples are compared with: the data of their run, other images, or published statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from diffcli.commands.inception_weights import cache_directory
from diffcli.commands.reference_names import names_like, published_reference
from diffcli.config.suggest import did_you_mean
from diffcli.data.image_sets import ImageSet, open_image_set
from diffcli.data.prepared import prepared_names, prepared_splits
from diffcli.data.reference_statistics import MeanAndCovariance, PublishedStatistics, read_statistics
from diffcli.errors import MissingError, UsageError
from diffcli.evaluation.moments import Moments
from diffcli.evaluation.set_statistics import SetStatistics
from diffcli.images.decode import printable
from diffcli.records.image_evaluations import EvaluatedSet
from diffcli.registry.create import Run
from diffcli.registry.run_record import UNKNOWN_DATASET, known_dataset

_OPTION = "--reference"
_DIRECTORY = "references"


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Images, statistics of Inception's features, or both: one of them is None."""

    images: ImageSet | None
    statistics: PublishedStatistics | None

    def described(self, count: int) -> EvaluatedSet:
        """What a record says of it, of which `count` images were looked at."""
        if self.statistics is None:
            assert self.images is not None
            return self.images.described(count)
        dataset = None if self.images is None else self.images.dataset
        return EvaluatedSet(
            kind="statistics",
            location=self.statistics.location.absolute(),
            count=count,
            total=0 if dataset is None else dataset.count,
            height=0 if dataset is None else dataset.height,
            width=0 if dataset is None else dataset.width,
            channels=0 if dataset is None else dataset.channels,
            content_hash=self.statistics.sha256,
            weak_hash=False,
        )

    def published(self) -> SetStatistics:
        """What the file of statistics says, of an unknown number of images."""
        assert self.statistics is not None
        return SetStatistics(
            pooled=_moments(self.statistics.pooled), spatial=_moments(self.statistics.spatial), rows=None
        )


@dataclass(frozen=True, kw_only=True)
class ReferenceChoice:
    """What was asked for; None: the data that the run was trained on. data_home: of datasets by name."""

    text: str | None
    data_home: Path


@contextlib.contextmanager
def open_reference(choice: ReferenceChoice, run: Run | None, scratch: Path) -> Iterator[Reference]:
    """The reference that is meant.

    run: whose samples they are, if any; scratch: as of `open_image_set`. Errors: those of `open_image_set`
    and `read_statistics`, MissingError for a name that names nothing, UsageError where nothing says what is
    meant.
    """
    path, split = _path_of(choice, run)
    statistics = read_statistics(path) if path.is_file() and path.suffix == ".npz" else None
    with contextlib.ExitStack() as stack:
        images = None
        if statistics is None or statistics.has_images:
            images = stack.enter_context(open_image_set(path, split=split, option=_OPTION, scratch=scratch))
        if statistics is not None and statistics.pooled is None:
            statistics = None
        if images is None and statistics is None:
            raise UsageError(
                f"{printable(path)} holds neither images nor statistics",
                where=_OPTION,
                remedy="give an .npz with arr_0, or with mu and sigma",
            )
        yield Reference(images=images, statistics=statistics)


def _path_of(choice: ReferenceChoice, run: Run | None) -> tuple[Path, str | None]:
    """Where it lies, and which split of a dataset is meant, None for any."""
    if choice.text is None:
        return _data_of(run), None
    path = Path(choice.text)
    if path.exists():
        return path, None
    name, _, split = choice.text.partition("/")
    if prepared_splits(choice.data_home, name):
        return choice.data_home / name, split or "train"
    published = published_reference(choice.text)
    if published is not None:
        return _published(published.url, published.file_name), None
    known = (*names_like(choice.text), *prepared_names(choice.data_home))
    raise MissingError(
        f"there is no reference {choice.text!r}",
        where=_OPTION,
        remedy=f"{did_you_mean(known[:3])} It is a file, a directory, a prepared dataset such as "
        "digits/test, or a published one such as VIRTUAL_imagenet256_labeled".strip(),
    )


def _published(url: str, file_name: str) -> Path:
    directory = cache_directory() / _DIRECTORY
    path = directory / file_name
    if not path.is_file():
        raise MissingError(
            f"{file_name} is not there; it is not fetched, as neither its size nor its digest was published",
            where=str(path),
            remedy=f"fetch it and put it there, or name it with {_OPTION} FILE: {url}",
        )
    return path


def _data_of(run: Run | None) -> Path:
    facts = UNKNOWN_DATASET if run is None else known_dataset(run.paths, run.record)
    if facts == UNKNOWN_DATASET:
        raise UsageError(
            "nothing says what to compare the images with",
            where=_OPTION,
            remedy=f"add {_OPTION} with a prepared dataset, a file, or a directory of images",
        )
    path = Path(facts.path)
    if not path.exists():
        raise MissingError(
            f"the data that {run.id if run else ''} was trained on is no longer at {printable(path)}",
            where=_OPTION,
            remedy=f"prepare it again, or name another reference with {_OPTION}",
        )
    return path


def _moments(found: MeanAndCovariance | None) -> Moments | None:
    if found is None:
        return None
    mean, covariance = torch.from_numpy(found.mean), torch.from_numpy(found.covariance)
    return Moments(count=0, mean=mean, covariance=covariance)
