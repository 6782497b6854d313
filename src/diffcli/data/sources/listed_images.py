"""Millions of image files in little memory: of a directory tree, or of a tar that is read where it lies."""

from __future__ import annotations

import contextlib
import hashlib
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcli.data.sources.archives import (
    Limits,
    checked_entries,
    damage_told,
    member_damage_told,
    opened,
)
from diffcli.data.sources.containers import Container, NestedTar, Tar, read_range
from diffcli.data.sources.image_files import DirectoryTree, is_image, is_mac_note
from diffcli.data.sources.source import Origin, SourceFacts, file_origin, places_identity
from diffcli.errors import CorruptError, MissingError
from diffcli.images.decode import decoded_content, printable
from diffcli.records.datasets import PrepareProgress, no_progress

# longer than any path in the published archives
_LONGEST_NAME_BYTES = 200


class ListedImages(Protocol):
    """Image files by number, in the order of their paths; `passed_over` is as in `ImageTree`."""

    location: Path
    passed_over: int
    # paths as bytes, sorted
    names: NDArray[np.bytes_]

    def image(self, index: int) -> Image.Image:
        """As `ImageSource`."""

    def content(self, index: int) -> bytes:
        """The file, from any thread; CorruptError or StorageError."""

    def identity(self) -> str:
        """As `ImageSource`."""

    def origin(self, progress: PrepareProgress = no_progress) -> Origin:
        """As `ImageSource`."""


class ListedSource:
    """Listed images with their classes, as one split. Implements `ImageSource`."""

    def __init__(self, images: ListedImages, facts: SourceFacts, labels: NDArray[np.int64] | None) -> None:
        self.location = images.location
        self.count = len(images.names)
        self.facts = facts
        self.labels = labels
        self.passed_over = images.passed_over
        self._images = images

    def name(self, index: int) -> str:
        """As `ImageSource`."""
        return os.fsdecode(bytes(self._images.names[index]))

    def image(self, index: int) -> Image.Image:
        """As `ImageSource`."""
        return self._images.image(index)

    def encoded(self, index: int) -> bytes:
        """As `ImageSource`."""
        return self._images.content(index)

    def identity(self) -> str:
        """As `ImageSource`."""
        labels = b"" if self.labels is None else self.labels.tobytes()
        return hashlib.sha256(self._images.identity().encode() + labels).hexdigest()

    def origin(self, progress: PrepareProgress = no_progress) -> Origin:
        """As `ImageSource`."""
        return self._images.origin(progress)


@contextlib.contextmanager
def list_images_of(
    location: Path, *, remedy: str, limits: Limits | None = None, progress: PrepareProgress = no_progress
) -> Iterator[ListedImages]:
    """The images of a directory, or of a tar that may hold further tars; it is not unpacked.

    progress: told the bytes of a tar behind which the listing is.

    Errors: MissingError with the remedy when it is neither or holds none, those of `checked_entries` and of
    `DirectoryTree`.
    """
    if location.is_dir():
        yield _told_empty(_DirectoryImages(location), remedy)
        return
    with opened(location) as file:
        if file.read(_TAR_HEAD_BYTES)[_TAR_MAGIC] != b"ustar":
            raise MissingError(f"{printable(location)} is neither a directory nor a tar", remedy=remedy)
        yield _told_empty(_TarImages(location, file, limits or Limits(), progress), remedy)


_TAR_HEAD_BYTES = 512
_TOLD_EVERY = 1000
_TAR_MAGIC = slice(257, 262)


def _told_empty(images: ListedImages, remedy: str) -> ListedImages:
    if not len(images.names):
        raise MissingError(f"{printable(images.location)} holds no images", remedy=remedy)
    return images


class _DirectoryImages:
    def __init__(self, root: Path) -> None:
        self.location = root
        self._tree = DirectoryTree(root)
        digest = hashlib.sha256(os.fsencode(root.resolve()))
        sizes_digest = hashlib.sha256()
        paths = []
        self._size_bytes = 0
        for file in self._tree.files():
            paths.append(_short(file.path, root))
            digest.update(b"%b\0%d %d " % (paths[-1], file.size_bytes, file.modified_ns))
            sizes_digest.update(b"%b\0%d " % (paths[-1], file.size_bytes))
            self._size_bytes += file.size_bytes
        self.passed_over = self._tree.passed_over
        self.names = np.sort(np.array(paths, dtype=np.bytes_))
        self._identity = digest.hexdigest()
        self._sizes_sha256 = sizes_digest.hexdigest()

    def image(self, index: int) -> Image.Image:
        return self._tree.image(os.fsdecode(bytes(self.names[index])))

    def content(self, index: int) -> bytes:
        return self._tree.content(os.fsdecode(bytes(self.names[index])))

    def identity(self) -> str:
        return self._identity

    def origin(self, _progress: PrepareProgress = no_progress) -> Origin:
        # a million small files are not read a second time only for that
        url = self.location.resolve().as_uri()
        return Origin(url=url, size_bytes=self._size_bytes, sha256=self._sizes_sha256)


class _TarImages:
    def __init__(self, location: Path, file: IO[bytes], limits: Limits, progress: PrepareProgress) -> None:
        self.location = location
        self.passed_over = 0
        self._file = file
        with damage_told(location):
            container: Container = NestedTar(file) if _holds_tars(file) else Tar(file)
        names, ranges = [], array("q")
        archive_bytes = location.stat().st_size
        for entry in checked_entries(location, container, limits):
            if entry.kind == "other" or (is_image(entry.name) and is_mac_note(entry.name)):
                self.passed_over += 1
            elif is_image(entry.name):
                names.append(_short(entry.name, location))
                ranges.extend((entry.place, entry.size_bytes))
                if len(names) % _TOLD_EVERY == 0:
                    progress(entry.place, archive_bytes)
        self.names = np.array(names, dtype=np.bytes_)
        self._ranges = np.array(ranges).reshape(-1, 2)
        self._order()

    def image(self, index: int) -> Image.Image:
        return decoded_content(self.content(index), os.fsdecode(bytes(self.names[index])))

    def content(self, index: int) -> bytes:
        place, size_bytes = self._ranges[index].tolist()
        with member_damage_told(self.location, os.fsdecode(bytes(self.names[index]))):
            return read_range(self._file, place, size_bytes)

    def identity(self) -> str:
        return places_identity([self.location])

    def origin(self, progress: PrepareProgress = no_progress) -> Origin:
        return file_origin(self.location, progress)

    def _order(self) -> None:
        """Sort by name; of files with one name the last counts, as in unpacking."""
        order = np.argsort(self.names, kind="stable")
        names = self.names[order]
        last = np.append(names[1:] != names[:-1], [True]) if len(names) else np.empty(0, bool)
        self.names, self._ranges = names[last], self._ranges[order][last]


def _holds_tars(file: IO[bytes]) -> bool:
    """Whether the first file of a tar is a tar itself, by its name."""
    first = next((entry for entry in Tar(file).entries() if entry.kind == "file"), None)
    return first is not None and first.name.endswith(".tar")


def _short(name: str, location: Path) -> bytes:
    encoded = os.fsencode(name)
    if len(encoded) > _LONGEST_NAME_BYTES or b"\0" in encoded:
        raise CorruptError(
            f"{printable(location)} holds a name that is too long for a published dataset",
            where=printable(name[:_LONGEST_NAME_BYTES]),
            remedy="diffcli prepare folder takes any names",
        )
    return encoded
