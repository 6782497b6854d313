"""What every source of images hands over: images by index, with their labels and where they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcli.durable import sha256
from diffcli.records.datasets import LabelOrigin

_HASHED_BYTES = 2**34


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
    """Where the images lay, and the bytes of what was read; sha256: "" when that was not one file."""

    url: str
    size_bytes: int
    sha256: str = ""


class ImageSource(Protocol):
    """The images of one split, 0..count-1, in an order that every opening of the source repeats.

    Methods that take an index are called from several threads at once, in about rising order: never further
    apart than the few images that are decoded ahead. Whatever must be closed belongs to the context that
    opened the source.
    """

    @property
    def location(self) -> Path:
        """The directory or file, as errors call it."""

    @property
    def facts(self) -> SourceFacts:
        """What is known of the split."""

    @property
    def count(self) -> int:
        """Images, at least 1."""

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

    def origin(self) -> Origin:
        """Asked for once, after the last image; may read the whole source."""


def places_identity(places: Sequence[Path], *settings: object) -> str:
    """A digest of the files that are read, by path, size and time of change, and of settings."""
    digest = hashlib.sha256(repr(settings).encode())
    for place in places:
        status = place.stat()
        told = (str(place.resolve()), status.st_size, status.st_mtime_ns)
        digest.update(repr(told).encode())
    return digest.hexdigest()


def file_origin(location: Path) -> Origin:
    """The origin of what was read from one file, without SHA-256 if that would take many minutes."""
    return files_origin(location, [location])


def files_origin(location: Path, files: Sequence[Path]) -> Origin:
    """The origin of what was read from files in a directory, which alone count; SHA-256 as `file_origin`."""
    size_bytes = sum(file.stat().st_size for file in files)
    one = len(files) == 1 and size_bytes <= _HASHED_BYTES
    digest = sha256(files[0]) if one else ""
    return Origin(url=location.resolve().as_uri(), size_bytes=size_bytes, sha256=digest)
