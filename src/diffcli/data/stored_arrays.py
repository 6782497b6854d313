"""Arrays that an npz file holds uncompressed: mapped where they lie, so they need not fit into memory."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

_LOCAL_HEADER_BYTES = 30
_BLOCK_BYTES = 2**22
# what damaged files, and files that are no npz at all, make their readers raise
_UNUSABLE = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)


def mapped_array(path: Path, name: str) -> npt.NDArray[Any] | None:
    """An array of an npz file, read-only, after a look at all of it for its checksum.

    None for whatever cannot be mapped: compressed, stored by columns, of Python objects, damaged, or no npz.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            info = archive.getinfo(f"{name}.npy")
            if info.compress_type != zipfile.ZIP_STORED:
                return None
            with archive.open(info) as member:
                # its end is where the checksum is compared
                while member.read(_BLOCK_BYTES):
                    pass
            return _mapped(path, file, info)
    except _UNUSABLE:
        return None


def _mapped(path: Path, file: IO[bytes], info: zipfile.ZipInfo) -> npt.NDArray[Any] | None:
    file.seek(info.header_offset)
    name_bytes, extra_bytes = struct.unpack("<26x2H", file.read(_LOCAL_HEADER_BYTES))
    start = file.seek(name_bytes + extra_bytes, 1)
    if np.lib.format.read_magic(file) != (1, 0):
        return None
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    offset = file.tell()
    held = start + info.file_size - offset
    if dtype.hasobject or by_columns or math.prod(shape) * dtype.itemsize != held or not held:
        return None
    mapped: npt.NDArray[Any] = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
    return mapped.view(np.ndarray)
