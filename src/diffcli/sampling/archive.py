"""Sample archives: batches are written as parts, each whole or absent, then joined in bounded memory."""

from __future__ import annotations

import contextlib
import json
import math
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from diffcli import durable
from diffcli.errors import CorruptError, StorageError

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

LATENTS = "latents.npy"
_REQUEST = "request.json"
# of network file systems, which keep for a while that a file is not there
_PATIENCE_SECONDS = 120.0
_LOOK_SECONDS = 0.1
# a fixed date, so that the same samples are the same file
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class ArchivePlan:
    """How many images of which size [height, width, channels], drawn batch by batch."""

    count: int
    height: int
    width: int
    channels: int
    batch_size: int

    @property
    def file_name(self) -> str:
        """The reference's name of such an archive."""
        return f"samples_{self.count}x{self.height}x{self.width}x{self.channels}.npz"

    @property
    def batches(self) -> int:
        """Number of batches, the last one perhaps padded."""
        return -(-self.count // self.batch_size)

    @property
    def item_shape(self) -> tuple[int, ...]:
        """The shape of one of them."""
        return self.height, self.width, self.channels

    @property
    def dtype(self) -> npt.DTypeLike:
        """The type of their numbers."""
        return np.uint8

    def indices(self, batch: int) -> range:
        """The sample indices that a batch computes; those from count upwards are padding."""
        return range(batch * self.batch_size, (batch + 1) * self.batch_size)

    def kept(self, batch: int) -> range:
        """Those of them that are kept."""
        indices = self.indices(batch)
        return range(indices.start, min(indices.stop, self.count))


class LatentsPlan(ArchivePlan):
    """The same of x_T, float32 [channels, height, width], of which each image is drawn."""

    @property
    def file_name(self) -> str:
        """The name under which `sample --noise` finds them in a directory."""
        return LATENTS

    @property
    def item_shape(self) -> tuple[int, ...]:
        """The shape of one of them."""
        return self.channels, self.height, self.width

    @property
    def dtype(self) -> npt.DTypeLike:
        """The type of their numbers."""
        return np.float32


class ArchiveParts:
    """The finished batches of an archive in the making, in a directory that outlives an interruption.

    Its key says what decides item i, so the batches are of use to every request that has the same, whatever
    its count: a part that holds more than is needed serves, one that holds less is missing.
    """

    def __init__(self, directory: Path, plan: ArchivePlan) -> None:
        self.directory = directory
        self.plan = plan

    def begin(self, key: str) -> None:
        """Keep the parts that are there if they have the same key, else start with none."""
        if self._key() != key:
            durable.remove_tree(self.directory)
        with durable.storage_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        durable.write_json(self.directory / _REQUEST, key)

    def missing(self) -> tuple[int, ...]:
        """The batches still to compute."""
        return tuple(
            batch for batch in range(self.plan.batches) if _size_of(self._path(batch)) < self._needed(batch)
        )

    def write(self, batch: int, items: npt.NDArray[Any]) -> None:
        """Keep what was computed in a batch, without its padding: [N, *plan.item_shape]."""
        assert items.dtype == self.plan.dtype
        durable.write_bytes(self._path(batch), items[: len(self.plan.kept(batch))].tobytes())

    def take_from(self, directory: Path) -> int:
        """Copy what is missing from the parts of another request, if they have the same key; how many items.

        That request may be under way: its parts appear whole, and go when its archive stands.
        """
        other, taken = ArchiveParts(directory, self.plan), 0
        if other._key() is None or other._key() != self._key():
            return 0
        for batch in self.missing():
            with contextlib.suppress(OSError, CorruptError):
                items = other._read(batch)
                self.write(batch, items)
                taken += len(items)
        return taken

    def await_all(self, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        """Wait until no part is missing: what another machine wrote may take a while to be seen here.

        StorageError when some never come: then the processes do not share the directory.
        """
        deadline = time.monotonic() + patience_seconds
        while missing := self.missing():
            if time.monotonic() > deadline:
                raise StorageError(
                    f"{len(missing)} of {self.plan.batches} batches are not in {self.directory}, "
                    "though they were computed",
                    remedy="all processes need the same directory: give one that all machines share",
                )
            time.sleep(_LOOK_SECONDS)

    def read(self) -> Iterator[npt.NDArray[Any]]:
        """What all batches have given, in order."""
        return map(self._read, range(self.plan.batches))

    def remove(self) -> None:
        """Delete the parts, once the archive stands."""
        durable.remove_tree(self.directory)

    def _key(self) -> str | None:
        """The key that the parts have; None when they have none."""
        try:
            return str(json.loads((self.directory / _REQUEST).read_bytes()))
        except (OSError, ValueError):
            return None

    def _read(self, batch: int) -> npt.NDArray[Any]:
        """The items of a batch that are kept; CorruptError when there are fewer."""
        needed = self._needed(batch)
        content = np.fromfile(self._path(batch), dtype=np.uint8, count=needed)
        if content.size < needed:
            raise CorruptError(
                f"{self._path(batch)} is {content.size} bytes, needed are {needed}",
                remedy="sample again: only that batch is drawn anew",
            )
        return content.view(self.plan.dtype).reshape(len(self.plan.kept(batch)), *self.plan.item_shape)

    def _needed(self, batch: int) -> int:
        item_bytes = math.prod(self.plan.item_shape) * np.dtype(self.plan.dtype).itemsize
        return len(self.plan.kept(batch)) * item_bytes

    def _path(self, batch: int) -> Path:
        return self.directory / f"batch-{batch:06d}.bin"


def _size_of(path: Path) -> int:
    """In bytes, -1 when there is no such file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def write_archive(path: Path, plan: ArchivePlan, images: Iterator[Images], labels: Labels | None) -> None:
    """Write arr_0 uint8 [N, H, W, C] and, if given, arr_1 int64 [N], one batch in memory at a time."""
    temporary = path.with_name(f".{path.name}.tmp")
    with durable.storage_errors(path):
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            with _member(archive, "arr_0.npy") as file:
                shape = (plan.count, plan.height, plan.width, plan.channels)
                _write_header(file, shape, np.dtype(np.uint8))
                for batch in images:
                    file.write(np.ascontiguousarray(batch).data)
            if labels is not None:
                with _member(archive, "arr_1.npy") as file:
                    _write_header(file, labels.shape, labels.dtype)
                    file.write(labels.tobytes())
        durable.sync_file(temporary)
        temporary.replace(path)
        durable.sync_directory(path.parent)


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(zipfile.ZipInfo(name, _ZIP_DATE), "w", force_zip64=True)


def _write_header(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
