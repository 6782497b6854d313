"""Files by name, in a directory or in an archive, which look the same from here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from diffcli.data.sources.archives import Limits, open_archive, opened
from diffcli.errors import CorruptError, MissingError, StorageError
from diffcli.images.decode import printable
from diffcli.records.datasets import PrepareProgress, no_progress

_SMALL_BYTES = 64 * 2**20
# less than the calls that Python nests
_DEEPEST = 200


class NamedFiles(Protocol):
    """Files below a place, by relative paths with forward slashes."""

    location: Path

    @property
    def sizes_bytes(self) -> Mapping[str, int]:
        """The size of each file by its name."""

    def read(self, name: str) -> bytes:
        """The content of a file; CorruptError or StorageError."""


@contextlib.contextmanager
def open_files(path: Path, *, scratch: Path, progress: PrepareProgress = no_progress) -> Iterator[NamedFiles]:
    """The files of a directory or an archive; the rest and the errors are those of `open_archive`."""
    if path.is_dir():
        yield _Directory(path)
        return
    with open_archive(path, scratch=scratch, progress=progress) as archive:
        yield archive


def by_base_name(files: NamedFiles) -> dict[str, str]:
    """The path of each file by its last part; of several the one nearest to the top."""
    found: dict[str, str] = {}
    for name in files.sizes_bytes:
        base = name.rpartition("/")[2]
        if base not in found or name.count("/") < found[base].count("/"):
            found[base] = name
    return found


class _Directory:
    """The regular files of a directory and below it, links not followed to other directories."""

    def __init__(self, root: Path) -> None:
        self.location = root
        self._sizes = dict(self._listed())

    @property
    def sizes_bytes(self) -> Mapping[str, int]:
        return self._sizes

    def read(self, name: str) -> bytes:
        if self._sizes[name] > Limits.member_bytes:
            raise CorruptError(f"more than {Limits.member_bytes // 2**20} MiB", where=printable(name))
        try:
            return (self.location / name).read_bytes()
        except OSError as error:
            raise StorageError(os.strerror(error.errno or 0).lower(), where=printable(name)) from error

    def _listed(self) -> Iterator[tuple[str, int]]:
        try:
            for parent, _, names in os.walk(self.location, onerror=_raise):
                if len(Path(parent).relative_to(self.location).parts) > _DEEPEST:
                    raise CorruptError(
                        f"{printable(self.location)} holds directories more than {_DEEPEST} deep",
                        remedy="give the directory that the files lie in",
                    )
                for name in sorted(names):
                    path = Path(parent, name)
                    if path.is_file():
                        yield path.relative_to(self.location).as_posix(), path.stat().st_size
        except OSError as error:
            raise StorageError(f"cannot list {printable(self.location)}: {error.strerror}") from error


def _raise(error: OSError) -> None:
    raise error


def require_there(path: Path, remedy: str) -> None:
    """MissingError when there is nothing at a path."""
    if not path.exists():
        raise MissingError(f"there is no {printable(path)}", remedy=remedy)


def read_small(path: Path) -> bytes:
    """A file that is read as a whole; MissingError, StorageError, or CorruptError when it is too large."""
    with opened(path) as file:
        content = file.read(_SMALL_BYTES + 1)
    if len(content) > _SMALL_BYTES:
        raise CorruptError(f"{printable(path)} is larger than such a file can be")
    return content
