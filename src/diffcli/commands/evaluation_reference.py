"""What samples are compared with: the data of their run, other images, or published statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.compared_set import ComparedSet, open_compared_set
from diffcli.commands.images_as_trained import reopened_images
from diffcli.commands.inception_weights import cache_directory
from diffcli.commands.reference_names import names_like, published_reference
from diffcli.commands.run_config import current_config
from diffcli.config.suggest import did_you_mean
from diffcli.data.image_sets import ImageSet
from diffcli.data.prepared import prepared_names, prepared_splits
from diffcli.errors import MissingError, UsageError
from diffcli.images.decode import printable
from diffcli.registry.create import Run
from diffcli.registry.run_record import UNKNOWN_DATASET, known_dataset

_OPTION = "--reference"
_DIRECTORY = "references"


@dataclass(frozen=True, kw_only=True)
class ReferenceChoice:
    """What was asked for; None: the data that the run was trained on. data_home: of datasets by name."""

    text: str | None
    data_home: Path


@contextlib.contextmanager
def open_reference(choice: ReferenceChoice, run: Run | None, scratch: Path) -> Iterator[ComparedSet]:
    """The reference that is meant.

    run: whose samples they are, if any; scratch: as of `open_image_set`. Errors: those of
    `open_compared_set` and `reopened_images`, MissingError for a name that names nothing, UsageError where
    nothing says what is meant.
    """
    if choice.text is None:
        yield ComparedSet(images=_data_of(run, choice.data_home), statistics=None)
        return
    path, split = _path_of(choice.text, choice.data_home)
    with open_compared_set(path, split=split, option=_OPTION, scratch=scratch) as reference:
        yield reference


def _path_of(text: str, data_home: Path) -> tuple[Path, str | None]:
    """Where it lies, and which split of a dataset is meant, None for any."""
    path = Path(text)
    if path.exists():
        return path, None
    name, _, split = text.partition("/")
    if prepared_splits(data_home, name):
        return data_home / name, split or "train"
    published = published_reference(text)
    if published is not None:
        return _published(published.url, published.file_name), None
    known = (*names_like(text), *prepared_names(data_home))
    raise MissingError(
        f"there is no reference {text!r}",
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


def _data_of(run: Run | None, data_home: Path) -> ImageSet:
    facts = UNKNOWN_DATASET if run is None else known_dataset(run.paths, run.record)
    if run is None or facts == UNKNOWN_DATASET:
        raise UsageError(
            "nothing says what to compare the images with",
            where=_OPTION,
            remedy=f"add {_OPTION} with a prepared dataset, a file, or a directory of images",
        )
    path = Path(facts.path)
    if not path.exists():
        raise MissingError(
            f"the data that {run.id} was trained on is no longer at {printable(path)}",
            where=_OPTION,
            remedy=f"prepare it again, or name another reference with {_OPTION}",
        )
    return reopened_images(run, current_config(run), facts, data_home)
