"""Sample archives: batches are written as parts, each whole or absent, then joined in bounded memory."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from diffcli import durable
from diffcli.errors import CorruptError
from diffcli.parts import BatchParts, BatchPlan

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

LATENTS = "latents.npy"
# a fixed date, so that the same samples are the same file
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class ArchivePlan(BatchPlan):
    """How many images of which size [height, width, channels], drawn batch by batch, the last one padded."""

    height: int
    width: int
    channels: int

    @property
    def file_name(self) -> str:
        """The reference's name of such an archive."""
        return f"samples_{self.count}x{self.height}x{self.width}x{self.channels}.npz"

    @property
    def item_shape(self) -> tuple[int, ...]:
        """The shape of one of them."""
        return self.height, self.width, self.channels

    @property
    def dtype(self) -> npt.DTypeLike:
        """The type of their numbers."""
        return np.uint8


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


class ArchiveParts(BatchParts[npt.NDArray[Any]]):
    """The finished batches of an archive in the making.

    Its key says what decides item i, so the batches are of use to every request that has the same, whatever
    its count: a part that holds more than is needed serves, one that holds less is missing.
    """

    plan: ArchivePlan

    def __init__(self, directory: Path, plan: ArchivePlan) -> None:
        super().__init__(directory, plan)

    def missing(self) -> tuple[int, ...]:
        """The batches still to compute."""
        return tuple(
            batch for batch in range(self.plan.batches) if self._held_bytes(batch) < self._needed(batch)
        )

    def write(self, batch: int, content: npt.NDArray[Any]) -> None:
        """Keep what was computed in a batch, without its padding: [N, *plan.item_shape]."""
        assert content.dtype == self.plan.dtype
        self._write_bytes(batch, content[: len(self.plan.images(batch))].tobytes())

    def take_from(self, directory: Path) -> int:
        """Copy what is missing from the parts of another request, if they have the same key; how many items.

        That request may be under way: its parts appear whole, and go when its archive stands.
        """
        other, taken = ArchiveParts(directory, self.plan), 0
        if other.key is None or other.key != self.key:
            return 0
        for batch in self.missing():
            with contextlib.suppress(OSError, CorruptError):
                items = other._read(batch)
                self.write(batch, items)
                taken += len(items)
        return taken

    def read(self) -> Iterator[npt.NDArray[Any]]:
        """What all batches have given, in order; not to be written to."""
        return map(self._read, range(self.plan.batches))

    def _read(self, batch: int) -> npt.NDArray[Any]:
        """The items of a batch that are kept; CorruptError when there are fewer."""
        content = self._read_bytes(batch, self._needed(batch))
        shape = (len(self.plan.images(batch)), *self.plan.item_shape)
        return np.frombuffer(content, dtype=self.plan.dtype).reshape(shape)

    def _needed(self, batch: int) -> int:
        item_bytes = math.prod(self.plan.item_shape) * np.dtype(self.plan.dtype).itemsize
        return len(self.plan.images(batch)) * item_bytes


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
