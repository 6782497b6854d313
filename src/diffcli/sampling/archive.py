"""Sample archives: batches are written as parts, each whole or absent, then joined in bounded memory."""

from __future__ import annotations

import json
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

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

LATENTS = "latents.npy"
_REQUEST = "request.json"
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
    """The finished batches of an archive in the making, in a directory that outlives an interruption."""

    def __init__(self, directory: Path, plan: ArchivePlan) -> None:
        self.directory = directory
        self.plan = plan

    def begin(self, fingerprint: str) -> None:
        """Keep the parts that are there if they belong to the same request, else start with none."""
        request = self.directory / _REQUEST
        if not request.is_file() or json.loads(request.read_text()) != fingerprint:
            durable.remove_tree(self.directory)
        with durable.storage_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        durable.write_json(request, fingerprint)

    def missing(self) -> tuple[int, ...]:
        """The batches still to compute."""
        return tuple(batch for batch in range(self.plan.batches) if not self._path(batch).is_file())

    def write(self, batch: int, items: npt.NDArray[Any]) -> None:
        """Keep what was computed in a batch, without its padding: [N, *plan.item_shape]."""
        assert items.dtype == self.plan.dtype
        durable.write_bytes(self._path(batch), items[: self._kept(batch)].tobytes())

    def read(self) -> Iterator[npt.NDArray[Any]]:
        """What all batches have given, in order."""
        for batch in range(self.plan.batches):
            content = np.fromfile(self._path(batch), dtype=np.uint8)
            shape = (self._kept(batch), *self.plan.item_shape)
            needed = math.prod(shape) * np.dtype(self.plan.dtype).itemsize
            if content.size != needed:
                raise CorruptError(
                    f"{self._path(batch)} is {content.size} bytes, needed are {needed}",
                    remedy="delete it and sample again: only that batch is drawn anew",
                )
            yield content.view(self.plan.dtype).reshape(shape)

    def remove(self) -> None:
        """Delete the parts, once the archive stands."""
        durable.remove_tree(self.directory)

    def _kept(self, batch: int) -> int:
        return min(self.plan.batch_size, self.plan.count - batch * self.plan.batch_size)

    def _path(self, batch: int) -> Path:
        return self.directory / f"batch-{batch:06d}.bin"


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
