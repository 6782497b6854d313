"""Zip as a list of members with their contents, in the memory of one: nothing of a member is kept."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from diffcli.data.sources.containers import DamagedError, Entry, EntryKind, read_range

_BLOCK_BYTES = 2**22
_DIRECTORY_BLOCK_BYTES = 2**20
# the end: signature, numbers of disks, members on the disk and in all, bytes and place of the directory
_END = struct.Struct("<4s4H2I")
_END_SIGNATURE = b"PK\x05\x06"
_END_SEARCHED_BYTES = _END.size + 2 + 0xFFFF
_TOO_MANY = 0xFFFF
# the same for large archives lies before it, and its locator between both
_LARGE_END = struct.Struct("<4sQ2H2I4Q")
_LARGE_END_SIGNATURE = b"PK\x06\x06"
_LOCATOR_SIGNATURE = b"PK\x06\x07"
_LOCATOR_BYTES = 20
# a member in the directory: signature, versions, flags, method, date; checksum and sizes; lengths of what
# follows, disk, attributes; attributes of its system, place
_RECORD = struct.Struct("<4s6H3I5H2I")
_RECORD_SIGNATURE = b"PK\x01\x02"
# before its content: signature, version, flags, method, date, checksum, sizes, lengths of name and extra
_LOCAL = struct.Struct("<4s5H3I2H")
_LOCAL_SIGNATURE = b"PK\x03\x04"
_IN_EXTRA = 0xFFFFFFFF
_LARGE_SIZES, _UNICODE_NAME = 0x0001, 0x7075
_ENCRYPTED, _PATCHED, _UTF8 = 0x0041, 0x0020, 0x0800
_STORED, _DEFLATED = 0, 8


@dataclass(frozen=True, kw_only=True, slots=True)
class _Directory:
    """Where the records of the members lie, from start to stop, and their number, or its last 16 bits.

    shift: bytes before the archive, such as those of a program that unpacks it.
    """

    start: int
    stop: int
    count: int
    whole_count: bool
    shift: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """A member as the directory tells it; place: of its local header; length: of this record, bytes."""

    raw_name: bytes
    name: str
    flags: int
    method: int
    checksum: int
    packed_bytes: int
    size_bytes: int
    attributes: int
    place: int
    length: int


class Zip:
    """A zip; the place of a member is that of its record in the directory."""

    def __init__(self, file: IO[bytes]) -> None:
        """DamagedError when it has no end."""
        self._file = file
        self._directory = _find_directory(file)

    def entries(self) -> Iterator[Entry]:
        """All members; links and devices are `other`."""
        count = 0
        for place, record in self._records():
            count += 1
            if record.flags & _ENCRYPTED:
                raise DamagedError(f"{record.name} is encrypted")
            if record.method not in (_STORED, _DEFLATED) or record.flags & _PATCHED:
                raise DamagedError(f"{record.name} is neither stored nor deflated")
            yield Entry(name=record.name, kind=_kind(record), size_bytes=record.size_bytes, place=place)
        declared, whole = self._directory.count, self._directory.whole_count
        if declared != count if whole else declared not in (count & 0xFFFF, _TOO_MANY):
            raise DamagedError("its directory has another number of members than it says")

    def read(self, entry: Entry) -> bytes:
        """The content of a member, its checksum verified."""
        return b"".join(self.blocks(entry))

    def blocks(self, entry: Entry) -> Iterator[bytes]:
        """The same in pieces, the checksum verified with the last."""
        head = read_range(self._file, entry.place, _RECORD.size)
        length = _length(head, 0) or 0
        behind = read_range(self._file, entry.place + _RECORD.size, length - _RECORD.size)
        record = _parsed(head + behind, 0, self._directory.shift)
        packed = self._packed_blocks(record)
        done = checksum = 0
        for block in packed if record.method == _STORED else _inflated(packed):
            done += len(block)
            checksum = zlib.crc32(block, checksum)
            if done > record.size_bytes:
                break
            yield block
        if done != record.size_bytes or checksum != record.checksum:
            raise DamagedError("cut, or its checksum is another")

    def _packed_blocks(self, record: _Record) -> Iterator[bytes]:
        head = read_range(self._file, record.place, _LOCAL.size + len(record.raw_name))
        signature, *_, name_bytes, extra_bytes = _LOCAL.unpack_from(head)
        if signature != _LOCAL_SIGNATURE or head[_LOCAL.size :] != record.raw_name:
            raise DamagedError("it is not where the directory says")
        start = record.place + _LOCAL.size + name_bytes + extra_bytes
        if start + record.packed_bytes > self._directory.start:
            raise DamagedError("it is longer than the archive")
        for done in range(0, record.packed_bytes, _BLOCK_BYTES):
            yield read_range(self._file, start + done, min(_BLOCK_BYTES, record.packed_bytes - done))

    def _records(self) -> Iterator[tuple[int, _Record]]:
        """The records with their places, read a megabyte at a time."""
        at, stop = self._directory.start, self._directory.stop
        while at < stop:
            block = read_range(self._file, at, min(_DIRECTORY_BLOCK_BYTES, stop - at))
            inside = 0
            while at + inside < stop:
                length = _length(block, inside)
                if length is None or inside + length > len(block):
                    break
                record = _parsed(block, inside, self._directory.shift)
                yield at + inside, record
                inside += record.length
            if not inside:
                raise DamagedError("its directory is cut")
            at += inside


def _find_directory(file: IO[bytes]) -> _Directory:
    archive_bytes = os.fstat(file.fileno()).st_size
    start = max(0, archive_bytes - _END_SEARCHED_BYTES)
    tail = read_range(file, start, archive_bytes - start)
    inside = tail.rfind(_END_SIGNATURE)
    if not 0 <= inside <= len(tail) - _END.size:
        raise DamagedError("its end is missing")
    *_, count, directory_bytes, place = _END.unpack_from(tail, inside)
    stop, whole_count = start + inside, False
    large = stop - _LOCATOR_BYTES - _LARGE_END.size
    if large >= 0:
        found = read_range(file, large, _LARGE_END.size + _LOCATOR_BYTES)
        if found[_LARGE_END.size :].startswith(_LOCATOR_SIGNATURE):
            signature, *_, count, directory_bytes, place = _LARGE_END.unpack_from(found)
            if signature != _LARGE_END_SIGNATURE:
                raise DamagedError("its end is damaged")
            stop, whole_count = large, True
    shift = stop - directory_bytes - place
    if shift < 0:
        raise DamagedError("its directory is longer than the archive")
    return _Directory(
        start=stop - directory_bytes, stop=stop, count=count, whole_count=whole_count, shift=shift
    )


def _length(block: bytes, at: int) -> int | None:
    """The bytes of a record; None when not even its head is there."""
    if at + _RECORD.size > len(block):
        return None
    *_, name_bytes, extra_bytes, comment_bytes, _, _, _, _ = _RECORD.unpack_from(block, at)
    return _RECORD.size + int(name_bytes) + int(extra_bytes) + int(comment_bytes)


def _parsed(block: bytes, at: int, shift: int) -> _Record:
    told = _RECORD.unpack_from(block, at)
    signature, _, _, flags, method, _, _, checksum, packed_bytes, size_bytes = told[:10]
    name_bytes, extra_bytes, comment_bytes, _, _, attributes, place = told[10:]
    if signature != _RECORD_SIGNATURE:
        raise DamagedError("its directory is damaged")
    extra_at = at + _RECORD.size + name_bytes
    raw_name = block[at + _RECORD.size : extra_at]
    extra = _extra_fields(block[extra_at : extra_at + extra_bytes])
    size_bytes, packed_bytes, place = _large_numbers((size_bytes, packed_bytes, place), extra)
    return _Record(
        raw_name=raw_name,
        name=_name(raw_name, flags, extra),
        flags=flags,
        method=method,
        checksum=checksum,
        packed_bytes=packed_bytes,
        size_bytes=size_bytes,
        attributes=attributes,
        place=place + shift,
        length=_RECORD.size + name_bytes + extra_bytes + comment_bytes,
    )


def _large_numbers(numbers: Sequence[int], extra: Mapping[int, bytes]) -> list[int]:
    """Numbers of 32 bits, those for which that is too little from the extra field where they then stand."""
    missing = numbers.count(_IN_EXTRA)
    if not missing:
        return list(numbers)
    large = iter(struct.unpack_from(f"<{missing}Q", extra.get(_LARGE_SIZES, b"")))
    return [next(large) if number == _IN_EXTRA else number for number in numbers]


def _extra_fields(extra: bytes) -> dict[int, bytes]:
    """What follows a name, by its kind; what is damaged at the end of it counts for nothing."""
    fields: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        fields.setdefault(kind, extra[at + 4 : at + 4 + length])
        at += 4 + length
    return fields


def _name(raw: bytes, flags: int, extra: Mapping[int, bytes]) -> str:
    if b"\0" in raw:
        raise DamagedError("the name of a member holds a zero")
    if flags & _UTF8:
        return raw.decode("utf-8")
    # version, checksum of the other name, this name
    unicode_name = extra.get(_UNICODE_NAME, b"")
    if unicode_name[:5] == b"\x01" + zlib.crc32(raw).to_bytes(4, "little"):
        return unicode_name[5:].decode("utf-8")
    return raw.decode("cp437")


def _kind(record: _Record) -> EntryKind:
    # the upper half holds the mode of Unix, or nothing
    file_type = stat.S_IFMT(record.attributes >> 16)
    if file_type not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "other"
    return "directory" if record.name.endswith("/") or file_type == stat.S_IFDIR else "file"


def _inflated(packed: Iterator[bytes]) -> Iterator[bytes]:
    inflating = zlib.decompressobj(-zlib.MAX_WBITS)
    for block in packed:
        rest = block
        while rest and not inflating.eof:
            yield inflating.decompress(rest, _BLOCK_BYTES)
            rest = inflating.unconsumed_tail
    yield inflating.flush()
