"""ImageNet (ILSVRC 2012) at its full size, from the published tars or from trees of their files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffcli.data.sources.listed_images import ListedImages, ListedSource, list_images_of
from diffcli.data.sources.published import check_published, count_difference, split_rule
from diffcli.data.sources.source import ReferenceNames, SourceFacts
from diffcli.data.sources.wordnet_ids import CLASSES, is_wordnet_id, numbered, validation_number
from diffcli.errors import CorruptError, MissingError
from diffcli.images.decode import printable
from diffcli.records.datasets import PrepareProgress, no_progress

COUNTS = {"train": 1_281_167, "val": 50_000}
REMEDIES = {
    "train": "give ILSVRC2012_img_train.tar, or a directory with one directory per WordNet id",
    "val": "give ILSVRC2012_img_val.tar, or the directory of it",
}
LABELS_REMEDY = "give ILSVRC2012_devkit_t12.tar.gz or Kaggle's LOC_val_solution.csv with --val-labels"


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """The images of a split, each with its WordNet id."""

    split: str
    images: ListedImages
    ids: NDArray[np.bytes_]


@contextlib.contextmanager
def open_train(location: Path, progress: PrepareProgress = no_progress) -> Iterator[LabelledImages]:
    """From the tar of tars, one tar of all, or a tree: the id is a directory's name, or the file's prefix.

    progress: of listing them. Errors: those of `list_images_of`, CorruptError for an image without an id.
    """
    with list_images_of(location, remedy=REMEDIES["train"], progress=progress) as images:
        yield LabelledImages(split="train", images=images, ids=_ids(images, _id_in_path))


@contextlib.contextmanager
def open_val(
    location: Path, truth: Mapping[int, str] | None, progress: PrepareProgress = no_progress
) -> Iterator[LabelledImages]:
    """From the tar, its directory, or a tree with one directory per WordNet id.

    truth: the id of each image by the number in its name; None in a tree, which needs none. Errors: those of
    `list_images_of`, MissingError when the truth is needed, CorruptError for an image that it does not know.
    """

    def id_of(name: str) -> str:
        found = _id_in_path(name)
        number = validation_number(name.rpartition("/")[2])
        if found or number is None:
            return found
        if truth is None:
            raise MissingError(
                "the names of validation images do not tell their classes",
                where=f"such as {printable(name)}",
                remedy=LABELS_REMEDY,
            )
        return truth.get(number, "")

    with list_images_of(location, remedy=REMEDIES["val"], progress=progress) as images:
        yield LabelledImages(split="val", images=images, ids=_ids(images, id_of))


def imagenet_source(
    labelled: LabelledImages, classes: tuple[str, ...], *, allow_partial: bool
) -> ListedSource:
    """The split with the sorted WordNet ids as its classes.

    CorruptError for other counts than the published, unless allowed.
    """
    split, images = labelled.split, labelled.images
    count = len(images.names)
    differences = count_difference(split, count, COUNTS[split])
    if len(classes) != CLASSES:
        differences.append(f"it has {len(classes)} classes, the published one {CLASSES}")
    check_published(
        "ImageNet", images.location, differences, allow_partial=allow_partial, remedy=REMEDIES[split]
    )
    facts = SourceFacts(
        split=split,
        split_rule=split_rule(split, count, COUNTS[split]),
        label_source="source",
        class_names=classes,
        reference_names=ReferenceNames(digits=7),
    )
    return ListedSource(images, facts, numbered(labelled.ids, [name.encode() for name in classes]))


def _ids(images: ListedImages, id_of: Callable[[str], str]) -> NDArray[np.bytes_]:
    ids = np.zeros(len(images.names), dtype="S9")
    for index, name in enumerate(images.names):
        found = id_of(os.fsdecode(bytes(name)))
        if not found:
            raise CorruptError(
                f"{printable(images.location)} holds an image of no known class",
                where=printable(os.fsdecode(bytes(name))),
                remedy="give the directory or tar of one split only, as it was published",
            )
        ids[index] = found.encode()
    return ids


def _id_in_path(name: str) -> str:
    """The WordNet id that is a directory's name, or the file's up to its first underscore; "" for none."""
    *directories, base = name.split("/")
    for part in (*directories, base.partition("_")[0]):
        if is_wordnet_id(part):
            return part
    return ""
