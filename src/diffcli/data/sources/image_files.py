"""Where image files come from: a directory tree, or an archive of one, which look the same from here."""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from diffcli.data.sources.archives import Archive, open_archive
from diffcli.data.sources.named_files import read_small
from diffcli.errors import CorruptError, StorageError
from diffcli.images.decode import decoded, decoded_content, printable
from diffcli.records.datasets import PrepareProgress, no_progress

SUFFIXES = frozenset({"jpg", "jpeg", "png", "gif", "webp"})
# far more than any dataset has, and less than the calls that Python nests
_DEEPEST = 200
_SHOWN_LETTERS = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFile:
    """A file by its path below the top, with forward slashes, and its size (0 for one that cannot be found).

    modified_ns: when its content changed, nanoseconds since 1970; in an archive that is when the archive did.
    """

    path: str
    size_bytes: int
    modified_ns: int


class ImageFiles:
    """Image files in the order of their tree: millions in little more memory than their paths take."""

    def __init__(self, files: Iterable[ImageFile]) -> None:
        self.paths: list[str] = []
        self.sizes_bytes, self._modified_ns = array("q"), array("q")
        for file in files:
            self.paths.append(file.path)
            self.sizes_bytes.append(file.size_bytes)
            self._modified_ns.append(file.modified_ns)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[ImageFile]:
        for path, size_bytes, modified_ns in zip(
            self.paths, self.sizes_bytes, self._modified_ns, strict=True
        ):
            yield ImageFile(path=path, size_bytes=size_bytes, modified_ns=modified_ns)


class ImageTree(Protocol):
    """Image files by path.

    `passed_over` counts what was left out of the last listing: what is neither file nor directory, and notes
    of macOS that are named like images.
    """

    location: Path
    passed_over: int

    def files(self) -> Iterator[ImageFile]:
        """Depth first, names by code point, each directory visited in its place among the files."""

    def image(self, path: str) -> Image.Image:
        """One of the files as `images.decode.decoded` gives it, from any thread."""

    def content(self, path: str) -> bytes:
        """The bytes of one of the files, from any thread; CorruptError or StorageError."""

    def other_content(self, path: str) -> bytes | None:
        """The bytes of a small file that is no image; None when there is none."""


@contextlib.contextmanager
def open_images(
    source: Path, *, scratch: Path, progress: PrepareProgress = no_progress
) -> Iterator[ImageTree]:
    """The images of a directory or an archive; the rest and the errors are those of `open_archive`."""
    if source.is_dir():
        yield DirectoryTree(source)
        return
    with open_archive(source, scratch=scratch, progress=progress) as archive:
        yield ArchiveTree(archive)


class DirectoryTree:
    """The images in a directory and below it, links followed. Implements `ImageTree`."""

    def __init__(self, root: Path) -> None:
        self.location = root
        self.passed_over = 0

    def files(self) -> Iterator[ImageFile]:
        """As `ImageTree`; StorageError for a directory that cannot be listed, CorruptError for a circle."""
        self.passed_over = 0
        for file in _walk(self.location, "", ()):
            if is_mac_note(file.path):
                self.passed_over += 1
            else:
                yield file

    def image(self, path: str) -> Image.Image:
        """As `ImageTree`."""
        # pathlib takes as long as a small image
        return decoded(f"{self.location}/{path}")

    def content(self, path: str) -> bytes:
        """As `ImageTree`."""
        try:
            return (self.location / path).read_bytes()
        except OSError as error:
            raise StorageError(os.strerror(error.errno or 0).lower(), where=printable(path)) from error

    def other_content(self, path: str) -> bytes | None:
        """As `ImageTree`."""
        return read_small(self.location / path) if (self.location / path).is_file() else None


class ArchiveTree:
    """The images of an open archive. Implements `ImageTree`."""

    def __init__(self, archive: Archive) -> None:
        self.location = archive.location
        self.passed_over = archive.passed_over
        self._archive = archive

    def files(self) -> Iterator[ImageFile]:
        """As `ImageTree`."""
        sizes = self._archive.sizes_bytes
        modified_ns = self.location.stat().st_mtime_ns
        images = [path for path in sizes if is_image(path)]
        notes = sum(map(is_mac_note, images))
        self.passed_over = self._archive.passed_over + notes
        # as by the list of parts, in a third of its memory: no name holds a zero
        for path in sorted(images, key=lambda path: path.replace("/", "\0")):
            if not (notes and is_mac_note(path)):
                yield ImageFile(path=path, size_bytes=sizes[path], modified_ns=modified_ns)

    def image(self, path: str) -> Image.Image:
        """As `ImageTree`."""
        return decoded_content(self.content(path), path)

    def content(self, path: str) -> bytes:
        """As `ImageTree`."""
        return self._archive.read(path)

    def other_content(self, path: str) -> bytes | None:
        """As `ImageTree`."""
        return self._archive.read(path) if path in self._archive.sizes_bytes else None


def file_name(path: str) -> str:
    """The last part of a path with forward slashes."""
    return path.rpartition("/")[2]


def is_image(path: str) -> bool:
    """Whether a file is an image by its suffix."""
    name = file_name(path)
    return "." in name and name.rpartition(".")[2].lower() in SUFFIXES


def is_mac_note(path: str) -> bool:
    """Whether macOS keeps there what it knows of a file, under the name of that file: no image."""
    return file_name(path).startswith("._") or path.startswith("__MACOSX/") or "/__MACOSX/" in path


def _walk(directory: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[ImageFile]:
    for entry in _listed(directory, above):
        path = prefix + entry.name
        if _is_directory(entry):
            yield from _walk(Path(entry.path), f"{path}/", (*above, _identity(directory)))
        elif is_image(path):
            yield _image_file(path, entry)


def _listed(directory: Path, above: tuple[tuple[int, int], ...]) -> list[os.DirEntry[str]]:
    try:
        if _identity(directory) in above:
            raise CorruptError(f"{printable(directory)} links back to a directory it lies in")
        if len(above) > _DEEPEST:
            raise CorruptError(
                f"{printable(directory)[:_SHOWN_LETTERS]}... lies more than {_DEEPEST} directories deep",
                remedy="give the directory that the images lie in",
            )
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise StorageError(f"cannot list {printable(directory)}: {error.strerror}") from error


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself
        return False


def _identity(directory: Path) -> tuple[int, int]:
    status = directory.stat()
    return status.st_dev, status.st_ino


def _image_file(path: str, entry: os.DirEntry[str]) -> ImageFile:
    try:
        status = entry.stat()
    except OSError:  # decoding it will tell why
        return ImageFile(path=path, size_bytes=0, modified_ns=0)
    return ImageFile(path=path, size_bytes=status.st_size, modified_ns=status.st_mtime_ns)
