"""Archives as lists of members with their contents, without any trust in them; tar as such a list."""

from __future__ import annotations

import dataclasses
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal, Protocol

_TAR_BLOCK_BYTES = 512
_BLOCK_BYTES = 2**22
_LONGEST_HEADER_BYTES = 2**20

EntryKind = Literal["file", "directory", "other"]


class DamagedError(Exception):
    """What is wrong with a container, in words for its reader; parsers raise other exceptions besides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One member as the container tells it; place: where the container finds its content again."""

    name: str
    kind: EntryKind
    size_bytes: int
    place: int


class Container(Protocol):
    """Members in the order in which they are stored."""

    def entries(self) -> Iterator[Entry]:
        """All members; any exception says that the container is damaged."""

    def read(self, entry: Entry) -> bytes:
        """The content of a member, from any thread; any exception says that it is damaged."""

    def blocks(self, entry: Entry) -> Iterator[bytes]:
        """The same in pieces."""


class Tar:
    """An uncompressed tar, or one inside of another; the place of a member is the offset of its content."""

    def __init__(self, file: IO[bytes], *, start: int = 0, stop: int | None = None) -> None:
        """start, stop: where it lies in the file, bytes."""
        self._file = file
        self._start = start
        self._stop = os.fstat(file.fileno()).st_size if stop is None else stop

    def entries(self) -> Iterator[Entry]:
        """All members; links, devices and sparse files are `other`."""
        headers = _TarHeaders(self._file.fileno(), closefd=False)
        headers.seek(self._start)
        with tarfile.open(fileobj=headers, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            while (header := tar.next()) is not None:
                # tarfile would keep them all, as many as there may be
                tar.members = []  # type: ignore[attr-defined]
                if header.size < 0 or header.offset_data + header.size > self._stop:
                    raise DamagedError(f"{header.name} is longer than the archive")
                yield Entry(
                    name=header.name,
                    kind=_tar_kind(header),
                    size_bytes=header.size,
                    place=header.offset_data,
                )
            # tarfile takes a damaged header for the end
            end = tar.offset
            cut = end + _TAR_BLOCK_BYTES > self._stop
            if cut or os.pread(headers.fileno(), _TAR_BLOCK_BYTES, end) != bytes(_TAR_BLOCK_BYTES):
                raise DamagedError("the end is missing, or a header is damaged")

    def read(self, entry: Entry) -> bytes:
        """The content of a member."""
        return read_range(self._file, entry.place, entry.size_bytes)

    def blocks(self, entry: Entry) -> Iterator[bytes]:
        """The same in pieces."""
        return _range_blocks(self._file, entry)


class NestedTar:
    """A tar of tars, read where they lie; a member is called by its own name below that of its tar."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def entries(self) -> Iterator[Entry]:
        """All members of the inner tars, and of the outer one what is no tar."""
        for outer in Tar(self._file).entries():
            if outer.kind != "file" or not outer.name.endswith(".tar"):
                yield outer
                continue
            inner = Tar(self._file, start=outer.place, stop=outer.place + outer.size_bytes)
            for entry in inner.entries():
                if entry.name.startswith("/"):
                    raise DamagedError(f"{outer.name} names a place outside of it: {entry.name}")
                yield dataclasses.replace(entry, name=f"{outer.name.removesuffix('.tar')}/{entry.name}")

    def read(self, entry: Entry) -> bytes:
        """The content of a member."""
        return read_range(self._file, entry.place, entry.size_bytes)

    def blocks(self, entry: Entry) -> Iterator[bytes]:
        """The same in pieces."""
        return _range_blocks(self._file, entry)


def read_range(file: IO[bytes], place: int, size_bytes: int) -> bytes:
    """Bytes of a file, from any thread; DamagedError when it is shorter."""
    content = bytearray()
    while len(content) < size_bytes:
        block = os.pread(file.fileno(), size_bytes - len(content), place + len(content))
        if not block:
            raise DamagedError("cut")
        content += block
    return bytes(content)


def _range_blocks(file: IO[bytes], entry: Entry) -> Iterator[bytes]:
    for done in range(0, entry.size_bytes, _BLOCK_BYTES):
        yield read_range(file, entry.place + done, min(_BLOCK_BYTES, entry.size_bytes - done))


class _TarHeaders(io.FileIO):
    """A tar as tarfile reads it; no header takes much memory, whatever length it claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _LONGEST_HEADER_BYTES:
            raise DamagedError("a header claims an impossible length")
        return super().read(size) or b""


def _tar_kind(header: tarfile.TarInfo) -> EntryKind:
    if header.isdir():
        return "directory"
    return "file" if header.isreg() and not header.issparse() else "other"
