"""What every source of images hands over: images by index, with their labels and where they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcli.records.datasets import LabelOrigin, PrepareProgress, no_progress

_HASHED_BYTES = 2**34
_BLOCK_BYTES = 2**22


@dataclass(frozen=True, kw_only=True)
class ReferenceNames:
    """File names of `--layout folder`: `DIRECTORY/PREFIX_00012.png`, as the reference's scripts give them.

    directory: "" for NAME_SPLIT; prefix: "" for the class of each image; digits: of its number.
    """

    directory: str = ""
    prefix: str = ""
    digits: int = 5


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """What dataset.json tells of one split of a source; class_names: () without classes.

    split_rule: a sentence on which images are in the split; label_source: what decided the classes;
    published_digests: SHA-256 or MD5, hexadecimal, of the files any of which is the split as published.
    """

    split: str
    split_rule: str
    label_source: LabelOrigin
    class_names: tuple[str, ...] = ()
    variant: str = ""
    reference_names: ReferenceNames = ReferenceNames()
    published_digests: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the images lay, and the bytes of the files that were read.

    sha256: of the file that was read; of several, over theirs in order; of a tree of images, over their
    paths and sizes; "" when it is not known.
    """

    url: str
    size_bytes: int
    sha256: str = ""


class Announced(Protocol):
    """What is known of a split without its images: of an open source, or of a published one before that."""

    @property
    def facts(self) -> SourceFacts:
        """What is known of the split."""

    @property
    def count(self) -> int:
        """Images, at least 1."""

    def origin(self, progress: PrepareProgress = no_progress) -> Origin:
        """Where the images come from; may read the whole source, and tells the bytes read."""


class ImageSource(Announced, Protocol):
    """The images of one split, 0..count-1, in an order that every opening of the source repeats.

    Methods that take an index are called from several threads at once, in about rising order: never further
    apart than the few images that are decoded ahead. Whatever must be closed belongs to the context that
    opened the source.
    """

    @property
    def location(self) -> Path:
        """The directory or file, as errors call it."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class numbers, int64 [count], 0..classes-1; None without classes."""

    def name(self, index: int) -> str:
        """What errors call an image: its path in the source, or its place."""

    def image(self, index: int) -> Image.Image:
        """An image with all its pixels in memory, of its own size and 8-bit mode.

        CorruptError or StorageError for this image alone; anything else ends the preparation.
        """

    def encoded(self, index: int) -> bytes | None:
        """The file that `image` decodes, unchanged; None when there is none."""

    def identity(self) -> str:
        """A digest of what lies there, cheap to work out: places, sizes, times, and settings that choose
        and order the images. As long as it is the same, an interrupted preparation goes on.
        """


def places_identity(places: Sequence[Path], *settings: object) -> str:
    """A digest of the files that are read, by path, size and time of change, and of settings."""
    digest = hashlib.sha256(repr(settings).encode())
    for place in places:
        status = place.stat()
        told = (str(place.resolve()), status.st_size, status.st_mtime_ns)
        digest.update(repr(told).encode())
    return digest.hexdigest()


def file_origin(location: Path, progress: PrepareProgress = no_progress) -> Origin:
    """The origin of what was read from one file."""
    return files_origin(location, [location], progress)


def files_origin(location: Path, files: Sequence[Path], progress: PrepareProgress = no_progress) -> Origin:
    """The origin of what was read from these files at or below a location, in their order.

    Of files that take many minutes to read there is no SHA-256.
    """
    url = location.resolve().as_uri()
    size_bytes = sum(file.stat().st_size for file in files)
    if size_bytes > _HASHED_BYTES:
        return Origin(url=url, size_bytes=size_bytes)
    done = 0
    digests = []
    for file in files:
        digest = hashlib.sha256()
        for block in _blocks(file):
            digest.update(block)
            done += len(block)
            progress(done, size_bytes)
        digests.append(digest)
    if len(digests) > 1:
        digests = [hashlib.sha256(b"".join(digest.digest() for digest in digests))]
    return Origin(url=url, size_bytes=size_bytes, sha256=digests[0].hexdigest())


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK_BYTES):
            yield block
