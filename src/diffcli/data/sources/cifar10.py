"""CIFAR-10 (Krizhevsky 2009) in the forms in which it is published: python and binary batches."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcli.data.downloads.remote_file import RemoteFile
from diffcli.data.sources.named_files import NamedFiles, by_base_name, open_files
from diffcli.data.sources.plain_pickle import NotPlainError, read_plain_pickle
from diffcli.data.sources.published import AnnouncedSplit, check_published, count_difference, split_rule
from diffcli.data.sources.source import (
    Origin,
    ReferenceNames,
    SourceFacts,
    files_origin,
    places_identity,
)
from diffcli.errors import CorruptError, MissingError
from diffcli.images.decode import printable
from diffcli.records.datasets import PrepareProgress, no_progress

ARCHIVE = RemoteFile(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    name="cifar-10-python.tar.gz",
    size_bytes=170_498_071,
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    otherwise="give a mirror with --url, or a file or directory that you have with --source",
)
# SHA-256 of the python archive, MD5 of the binary one
_ARCHIVES = (ARCHIVE.sha256, "c32a1d4ab5d03f1284b67883e8d87530")
# sorted, as the loaders of the published checkpoints number them
CLASSES = ("bird", "car", "cat", "deer", "dog", "frog", "horse", "plane", "ship", "truck")
# the batches number airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck
_CLASS_OF_LABEL = np.array([7, 1, 0, 2, 3, 4, 5, 6, 8, 9])

_SIDE, _CHANNELS = 32, 3
_IMAGE_BYTES = _CHANNELS * _SIDE * _SIDE
# twice a genuine one
_LARGEST_BATCH_BYTES = 64 * 2**20
_REMEDY = "get the archive once more, or let `diffcli prepare cifar10` download it"


@dataclass(frozen=True, kw_only=True)
class _Split:
    """What is published of a split: its batches with their MD5, and the first labels as those number them."""

    name: str
    count: int
    batches: Mapping[str, str]
    first_labels: tuple[int, ...]


_SPLITS = (
    _Split(
        name="train",
        count=50_000,
        batches={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        first_labels=(6, 9, 9, 4, 1, 1, 2, 7, 8, 3),
    ),
    _Split(
        name="test",
        count=10_000,
        batches={"test_batch": "40351d587109b95175f43aff81a1287e"},
        first_labels=(3, 8, 8, 0, 6, 6, 1, 6, 3, 1),
    ),
)


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Pixels, uint8 [N, 3072], red, green and blue planes; labels, int64 [N], 0..9, as published.

    path: of its file in the archive or directory.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    path: str
    md5: str


class Cifar10Source:
    """One split, in memory. Implements `ImageSource`."""

    def __init__(self, location: Path, split: _Split, batches: Sequence[_Batch]) -> None:
        """location: what the user gave."""
        self.location = location
        self._files = [location / batch.path for batch in batches] if location.is_dir() else [location]
        self._pixels = np.concatenate([batch.pixels for batch in batches])
        self.labels: NDArray[np.int64] = _CLASS_OF_LABEL[np.concatenate([batch.labels for batch in batches])]
        self.count = len(self._pixels)
        digests = _ARCHIVES if location.is_file() else ()
        self.facts = dataclasses.replace(_facts(split, self.count), published_digests=digests)

    def name(self, index: int) -> str:
        """As `ImageSource`: what the reference calls the file it writes."""
        return f"{CLASSES[self.labels[index]]}_{index:05d}.png"

    def image(self, index: int) -> Image.Image:
        """As `ImageSource`."""
        planes = self._pixels[index].reshape(_CHANNELS, _SIDE, _SIDE)
        return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))

    def encoded(self, _index: int) -> None:
        """As `ImageSource`: there are no files."""

    def identity(self) -> str:
        """As `ImageSource`."""
        return places_identity(self._files)

    def origin(self, progress: PrepareProgress = no_progress) -> Origin:
        """As `ImageSource`."""
        return files_origin(self.location, self._files, progress)


def read_cifar10(
    location: Path, *, scratch: Path, allow_partial: bool, progress: PrepareProgress = no_progress
) -> list[Cifar10Source]:
    """The splits that a python or binary archive, or its unpacked directory, holds: train, then test.

    Errors: MissingError when it holds no batches, CorruptError for a damaged file or, unless allow_partial,
    one that differs from the published, and those of `open_archive`.
    """
    with open_files(location, scratch=scratch, progress=progress) as files:
        there = by_base_name(files)
        binary = not any(name in there for split in _SPLITS for name in split.batches)
        found = {split.name: list(_batches(files, there, split, binary=binary)) for split in _SPLITS}
    if not any(found.values()):
        raise MissingError(
            f"{printable(location)} holds no batches of CIFAR-10",
            where="looked for data_batch_1 and data_batch_1.bin",
            remedy="give cifar-10-python.tar.gz, cifar-10-binary.tar.gz, or the directory of one",
        )
    differences = [
        line for split in _SPLITS for line in _differences(split, found[split.name], binary=binary)
    ]
    check_published("CIFAR-10", location, differences, allow_partial=allow_partial, remedy=_REMEDY)
    return [Cifar10Source(location, split, found[split.name]) for split in _SPLITS if found[split.name]]


def announced_cifar10(read_origin: Callable[[PrepareProgress], Origin]) -> list[AnnouncedSplit]:
    """Both published splits, before their archive is opened."""
    return [
        AnnouncedSplit(facts=_facts(split, split.count), count=split.count, read_origin=read_origin)
        for split in _SPLITS
    ]


def _facts(split: _Split, count: int) -> SourceFacts:
    return SourceFacts(
        split=split.name,
        split_rule=split_rule(split.name, count, split.count),
        label_source="source",
        class_names=CLASSES,
        reference_names=ReferenceNames(directory=f"cifar_{split.name}"),
    )


def _batches(files: NamedFiles, there: Mapping[str, str], split: _Split, *, binary: bool) -> Iterator[_Batch]:
    for name in split.batches:
        path = there.get(f"{name}.bin" if binary else name)
        if path is not None:
            if files.sizes_bytes[path] > _LARGEST_BATCH_BYTES:
                raise _damaged(path, f"{files.sizes_bytes[path]:,} bytes are more than one has")
            content = files.read(path)
            yield _binary_batch(path, content) if binary else _python_batch(path, content)


def _binary_batch(path: str, content: bytes) -> _Batch:
    """Rows of a label and the pixels."""
    if not content or len(content) % (1 + _IMAGE_BYTES):
        raise _damaged(path, f"{len(content):,} bytes are no whole number of images")
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + _IMAGE_BYTES)
    return _batch(path, content, rows[:, 1:], rows[:, 0].astype(np.int64))


def _python_batch(path: str, content: bytes) -> _Batch:
    """A pickle with the keys `data` and `labels`."""
    try:
        found = read_plain_pickle(content)
    except NotPlainError as error:
        raise _damaged(path, f"it is not a pickle of plain arrays: {error}") from error
    pixels, labels = (_item(found, key) for key in ("data", "labels"))
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != _IMAGE_BYTES:
        raise _damaged(path, f"`data` is no array of rows of {_IMAGE_BYTES} bytes")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise _damaged(path, "`labels` is no list of numbers")
    if max(map(abs, labels), default=0) > len(CLASSES):
        raise _damaged(path, f"`labels` holds {max(labels, key=abs)}, where 0 to 9 are meant")
    return _batch(path, content, pixels, np.array(labels, dtype=np.int64))


def _item(found: object, key: str) -> object:
    """The value of a key, which Python 2 wrote as bytes."""
    if not isinstance(found, dict):
        return None
    return found.get(key, found.get(key.encode()))


def _batch(path: str, content: bytes, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> _Batch:
    if not 1 <= len(pixels) == len(labels):
        raise _damaged(path, f"{len(pixels)} images and {len(labels)} labels")
    outside = labels[(labels < 0) | (labels >= len(CLASSES))]
    if outside.size:
        raise _damaged(path, f"a label is {outside[0]}, where 0 to 9 are meant")
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return _Batch(pixels=pixels, labels=labels, path=path, md5=md5)


def _differences(split: _Split, batches: Sequence[_Batch], *, binary: bool) -> Iterator[str]:
    labels = np.concatenate([batch.labels for batch in batches]) if batches else np.empty(0, np.int64)
    yield from count_difference(split.name, len(labels), split.count)
    first = len(split.first_labels)
    if len(labels) == split.count and tuple(labels[:first]) != split.first_labels:
        yield f"the first labels of {split.name} are {labels[:first].tolist()}"
    if not binary and len(labels) == split.count:
        for (name, published), batch in zip(split.batches.items(), batches, strict=False):
            if batch.md5 != published:
                yield f"{name} has MD5 {batch.md5}, the published one {published}"


def _damaged(path: str, problem: str) -> CorruptError:
    return CorruptError(f"{printable(path)} is no batch of CIFAR-10", where=problem, remedy=_REMEDY)
