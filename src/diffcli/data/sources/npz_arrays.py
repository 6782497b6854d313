"""Arrays of an npz file: small ones at once, large ones in pieces, none of them by unpickling."""

from __future__ import annotations

import contextlib
import math
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from diffcli.data.sources.archives import Limits, damage_told
from diffcli.data.sources.containers import DamagedError, read_range
from diffcli.durable import require_space, storage_errors
from diffcli.errors import CorruptError
from diffcli.images.decode import printable
from diffcli.records.datasets import PrepareProgress, no_progress

_SMALL_BYTES = 256 * 2**20
_BLOCK_BYTES = 2**22
# its headers are short; later formats have some of gigabytes
_FORMAT = (1, 0)


@dataclass(frozen=True, kw_only=True)
class ArrayKind:
    """What the header of an array says."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Npz:
    """The arrays of an open npz file; errors name `location`."""

    def __init__(self, file: IO[bytes], location: Path) -> None:
        """CorruptError when it is no npz."""
        self.location = location
        with damage_told(location):
            self._zip = zipfile.ZipFile(file)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arrays, in the order of the file."""
        return tuple(name.removesuffix(".npy") for name in self._zip.namelist() if name.endswith(".npy"))

    def kind(self, name: str) -> ArrayKind:
        """Shape and type of an array; CorruptError when there is none, or it could not be read safely."""
        with self._opened(name) as member:
            return _kind(member)

    def array(self, name: str) -> NDArray[Any]:
        """A small array as a whole."""
        kind = self.kind(name)
        if math.prod(kind.shape) * kind.dtype.itemsize > _SMALL_BYTES:
            raise self._unusable(name, f"has the shape {kind.shape}")
        content = b"".join(self.blocks(name))
        return np.frombuffer(content, kind.dtype).reshape(kind.shape)

    def blocks(self, name: str) -> Iterator[bytes]:
        """The numbers of an array as bytes, row after row, in pieces."""
        with self._opened(name) as member:
            kind = _kind(member)
            missing = math.prod(kind.shape) * kind.dtype.itemsize
            while block := member.read(_BLOCK_BYTES):
                missing -= len(block)
                if missing < 0:
                    break
                yield block
            if missing:
                raise DamagedError(f"{name} has another size than its header says")

    def rows(self, name: str, at_once: int) -> Iterator[NDArray[Any]]:
        """The rows of an array, so many at once; the last of them are perhaps fewer."""
        with self._opened(name) as member:
            kind = _kind(member)
            row_shape = kind.shape[1:]
            row_bytes = math.prod(row_shape) * kind.dtype.itemsize
            for start in range(0, kind.shape[0], at_once):
                count = min(at_once, kind.shape[0] - start)
                content = member.read(count * row_bytes)
                if len(content) < count * row_bytes:
                    raise DamagedError(f"{name} has another size than its header says")
                yield np.frombuffer(content, kind.dtype).reshape(count, *row_shape)

    def _unusable(self, name: str, problem: str) -> CorruptError:
        return CorruptError(
            f"{printable(self.location)} holds no usable array {name!r}", where=problem, remedy=_REMEDY
        )

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        if f"{name}.npy" not in self._zip.namelist():
            raise self._unusable(name, f"it has {', '.join(map(printable, self.names)) or 'none'}")
        info = self._zip.getinfo(f"{name}.npy")
        if info.file_size > max(Limits.free_bytes, Limits.ratio * info.compress_size):
            raise self._unusable(name, f"more than {Limits.ratio} times its size when unpacked")
        with damage_told(self.location), self._zip.open(info) as member:
            yield member


_REMEDY = "get the file once more, from where you trust it"


class UnpackedRows:
    """Rows of equal size in a file without a name, which is gone when this object is."""

    def __init__(
        self, npz: Npz, name: str, row_bytes: int, scratch: Path, progress: PrepareProgress = no_progress
    ) -> None:
        """Unpack an array to a directory; errors are those of `Npz`, and StorageError."""
        self._row_bytes = row_bytes
        size_bytes = math.prod(npz.kind(name).shape)
        require_space(scratch, size_bytes)
        done = 0
        with storage_errors(scratch):
            self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 -- closed with this object
        for block in npz.blocks(name):
            with storage_errors(scratch):
                self._file.write(block)
            done += len(block)
            progress(done, size_bytes)
        with storage_errors(scratch):
            self._file.flush()

    def row(self, number: int) -> bytes:
        """A row, from any thread."""
        return read_range(self._file, number * self._row_bytes, self._row_bytes)


def _kind(member: IO[bytes]) -> ArrayKind:
    if np.lib.format.read_magic(member) != _FORMAT:
        raise DamagedError("an array of it has an unknown format")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(member)
    if dtype.hasobject:
        raise DamagedError("an array of it holds Python objects, which are not read")
    # a count of values does not tell the bytes of these, or the other way round
    if dtype.itemsize == 0 or dtype.subdtype is not None or min(shape, default=0) < 0:
        raise DamagedError("an array of it holds values of an impossible size")
    if by_columns and len(shape) > 1:
        raise DamagedError("an array of it is stored by columns")
    return ArrayKind(shape=shape, dtype=dtype)
