"""Tar and zip archives of unknown origin: listed within limits, read member by member.

No member is ever written under a name that the archive gives, so none can end up outside of a target.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gzip
import os
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, TypeGuard

from diffcli.data.sources.containers import Container, Entry, Tar
from diffcli.data.sources.zips import Zip
from diffcli.durable import storage_errors
from diffcli.errors import CorruptError, DiffcliError, MissingError, StorageError
from diffcli.images.decode import printable
from diffcli.records.datasets import PrepareProgress, no_progress

_BLOCK_BYTES = 2**20
_REMEDY = "get the archive once more, from where you trust it"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may hold, in unpacked bytes.

    ratio: unpacked bytes for each byte of the archive, once there are more than `free_bytes`.
    """

    members: int = 20_000_000
    member_bytes: int = 256 * 2**20
    total_bytes: int = 2**40
    ratio: int = 200
    free_bytes: int = 64 * 2**20


class Archive:
    """The regular files of an archive by name.

    Names have forward slashes, and no parts that are empty or a dot. Names that differ only in case are
    different files; of files with one name the last counts, as in unpacking. `sizes_bytes` has the size of
    each file by its name, in the order of the archive; `passed_over` counts links, devices and whatever else
    is no file.
    """

    def __init__(self, location: Path, container: Container, limits: Limits) -> None:
        """List the archive; CorruptError when it is damaged, names a place outside, or is over a limit."""
        self.location = location
        self.passed_over = 0
        self._container = container
        # of each file its row in the other two, since of millions an object for each is too much
        self._rows: dict[str, int] = {}
        self._places, self._sizes_bytes = array("q"), array("q")
        for entry in checked_entries(location, container, limits):
            if entry.kind == "file":
                self._rows[entry.name] = len(self._places)
                self._places.append(entry.place)
                self._sizes_bytes.append(entry.size_bytes)
            else:
                self.passed_over += 1
        self.sizes_bytes: Mapping[str, int] = _Sizes(self._rows, self._sizes_bytes)

    def read(self, name: str) -> bytes:
        """The content of a file, from any thread; CorruptError when it is damaged."""
        with member_damage_told(self.location, name):
            return self._container.read(self._entry(name))

    def blocks(self, name: str) -> Iterator[bytes]:
        """The same in pieces, for files that are too large for the memory."""
        with member_damage_told(self.location, name):
            yield from self._container.blocks(self._entry(name))

    def _entry(self, name: str) -> Entry:
        row = self._rows[name]
        return Entry(name=name, kind="file", size_bytes=self._sizes_bytes[row], place=self._places[row])


class _Sizes(Mapping[str, int]):
    """The size of each file by its name, in the order of the archive."""

    def __init__(self, rows: Mapping[str, int], sizes_bytes: Sequence[int]) -> None:
        self._rows = rows
        self._sizes_bytes = sizes_bytes

    def __getitem__(self, name: str) -> int:
        return self._sizes_bytes[self._rows[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def checked_entries(location: Path, container: Container, limits: Limits) -> Iterator[Entry]:
    """The files of a container, and as `other` what is neither file nor directory, with cleaned names.

    CorruptError when it is damaged, names a place outside, or is over a limit.
    """
    archive_bytes = location.stat().st_size
    total_bytes = 0
    with damage_told(location):
        for count, entry in enumerate(container.entries(), start=1):
            name = _inside(entry.name, location)
            if count > limits.members:
                raise _over(location, f"more than {limits.members} members")
            if entry.kind == "file":
                total_bytes += entry.size_bytes
                _check_member(location, entry, limits)
                _check_total(location, total_bytes, archive_bytes, limits)
            if entry.kind != "directory":
                yield entry if name == entry.name else dataclasses.replace(entry, name=name)


@contextlib.contextmanager
def member_damage_told(location: Path, name: str) -> Iterator[None]:
    """Turn whatever reading a member raises into an error that names it."""
    try:
        yield
    except Exception as error:  # parsers of damaged files raise whatever they stumble on
        if _is_of_the_disk(error):
            raise _unreadable(location, error) from error
        raise CorruptError(f"damaged in the archive: {_reason(error)}", where=printable(name)) from error


@contextlib.contextmanager
def open_archive(
    path: Path,
    *,
    scratch: Path,
    limits: Limits | None = None,
    progress: PrepareProgress = no_progress,
) -> Iterator[Archive]:
    """A tar, tar.gz or zip file, told by its content.

    scratch: a directory for a nameless temporary file, which takes the unpacked tar of a tar.gz; progress:
    told the bytes of that archive that are unpacked. Errors: MissingError when it is no archive, those of
    `Archive`, StorageError.
    """
    bounds = limits or Limits()
    with opened(path) as file, contextlib.ExitStack() as stack:
        kind = _kind(file)
        container: Container
        if kind == "zip":
            with damage_told(path):
                container = Zip(file)
        elif kind == "gzip":
            container = Tar(stack.enter_context(_unpacked(file, path, scratch, bounds, progress)))
        elif kind == "tar":
            container = Tar(file)
        else:
            raise _no_archive(f"{printable(path)} is not a directory, and no tar, tar.gz or zip archive")
        yield Archive(path, container, bounds)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file to read; MissingError when it is none, StorageError."""
    # opening a pipe would wait for its writer
    if path.exists() and not path.is_file():
        raise _no_archive(f"{printable(path)} is neither a directory nor a file")
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise _no_archive(f"there is no {printable(path)}") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        yield file


def _kind(file: IO[bytes]) -> Literal["zip", "gzip", "tar"] | None:
    head = file.read(512)
    file.seek(0)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    return "tar" if head[257:262] == b"ustar" else None


@contextlib.contextmanager
def _unpacked(
    file: IO[bytes], path: Path, scratch: Path, limits: Limits, progress: PrepareProgress
) -> Iterator[IO[bytes]]:
    """The tar in a tar.gz, as a file without a name, which is gone when it is closed or the process dies."""
    with contextlib.ExitStack() as stack:
        with storage_errors(scratch):
            spool = stack.enter_context(tempfile.TemporaryFile(dir=scratch))
        written_bytes, archive_bytes = 0, path.stat().st_size
        for block in _gunzipped(file, path):
            written_bytes += len(block)
            _check_total(path, written_bytes, archive_bytes, limits)
            progress(file.tell(), archive_bytes)
            with storage_errors(scratch):
                spool.write(block)
        with storage_errors(scratch):
            spool.flush()
        yield spool


def _gunzipped(file: IO[bytes], path: Path) -> Iterator[bytes]:
    with damage_told(path), gzip.GzipFile(fileobj=file) as packed:
        while block := packed.read(_BLOCK_BYTES):
            yield block


def _inside(name: str, location: Path) -> str:
    """The name without what does not count in it; CorruptError when it leads out of the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise CorruptError(
            f"{printable(location)} names a place outside of it: {printable(name)}", remedy=_REMEDY
        )
    return "/".join(parts)


def _check_member(location: Path, entry: Entry, limits: Limits) -> None:
    if entry.size_bytes > limits.member_bytes:
        found, most = entry.size_bytes / 2**20, limits.member_bytes / 2**20
        raise _over(location, f"{printable(entry.name)} has {found:,.0f} MiB, at most {most:,.0f} are read")


def _check_total(location: Path, total_bytes: int, archive_bytes: int, limits: Limits) -> None:
    if total_bytes > limits.total_bytes:
        raise _over(location, f"more than {limits.total_bytes / 2**40:g} TiB when unpacked")
    if total_bytes > limits.free_bytes and total_bytes > limits.ratio * archive_bytes:
        raise _over(location, f"more than {limits.ratio} times its size when unpacked")


def _over(location: Path, excess: str) -> CorruptError:
    return CorruptError(
        f"{printable(location)} holds more than an archive of images would",
        where=excess,
        remedy="if you trust it, unpack it yourself and prepare the folder",
    )


def _no_archive(what: str) -> MissingError:
    return MissingError(what, remedy="give a folder of images, or an archive of one")


@contextlib.contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn whatever a parser raises into an error that names the archive; those of ours pass."""
    try:
        yield
    except DiffcliError:
        raise
    except Exception as error:  # parsers of damaged files raise whatever they stumble on
        if _is_of_the_disk(error):
            raise _unreadable(path, error) from error
        raise CorruptError(
            f"{printable(path)} is damaged, or not what it seems",
            where=printable(_reason(error)),
            remedy=_REMEDY,
        ) from error


def _is_of_the_disk(error: Exception) -> TypeGuard[OSError]:
    """Whether reading failed; a damaged offset that leads before the file is EINVAL."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def _unreadable(path: Path, error: OSError) -> StorageError:
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return StorageError(f"cannot read {printable(path)}: {reason}")


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0][:100] or type(error).__name__
