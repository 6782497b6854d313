"""Images in an npz file, as sampling programs write them: arr_0 the pixels, arr_1 the labels if any."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcli.data.sources.archives import opened
from diffcli.data.sources.npz_arrays import Npz, UnpackedRows
from diffcli.data.sources.source import Origin, SourceFacts, file_origin, places_identity
from diffcli.errors import CorruptError
from diffcli.images.decode import printable
from diffcli.records.datasets import PrepareProgress, no_progress

_MOST_CLASSES = 100_000


class NpzSource:
    """The images of an npz file as one split. Implements `ImageSource`."""

    def __init__(
        self,
        location: Path,
        rows: UnpackedRows,
        shape: tuple[int, ...],
        labels: NDArray[np.int64] | None,
    ) -> None:
        """shape: [N, H, W, C], C 1 or 3."""
        self.location = location
        self.count = shape[0]
        self.labels = labels
        names = () if labels is None else tuple(str(number) for number in range(1 + int(labels.max())))
        self.facts = SourceFacts(
            split="train",
            split_rule="all images of the file",
            label_source="none" if labels is None else "source",
            class_names=names,
        )
        self._rows = rows
        self._shape = shape[1:]

    def name(self, index: int) -> str:
        """As `ImageSource`."""
        return f"arr_0[{index}]"

    def image(self, index: int) -> Image.Image:
        """As `ImageSource`."""
        pixels = np.frombuffer(self._rows.row(index), np.uint8).reshape(self._shape)
        return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)

    def encoded(self, _index: int) -> None:
        """As `ImageSource`: there are no files."""

    def identity(self) -> str:
        """As `ImageSource`."""
        return places_identity([self.location])

    def origin(self, progress: PrepareProgress = no_progress) -> Origin:
        """As `ImageSource`."""
        return file_origin(self.location, progress)


@contextlib.contextmanager
def open_npz_images(
    path: Path, *, scratch: Path, progress: PrepareProgress = no_progress
) -> Iterator[NpzSource]:
    """uint8 [N, H, W, 3], [N, H, W, 1] or [N, H, W] in arr_0, integers [N] from 0 in arr_1.

    scratch: a directory with room for the unpacked pixels, which go to a file without a name; progress: told
    their bytes. Errors: MissingError, StorageError, CorruptError.
    """
    with opened(path) as file:
        npz = Npz(file, path)
        shape = image_shape(npz)
        labels = read_labels(npz, shape[0]) if "arr_1" in npz.names else None
        rows = UnpackedRows(npz, "arr_0", math.prod(shape[1:]), scratch, progress)
    yield NpzSource(path, rows, shape, labels)


def image_shape(npz: Npz) -> tuple[int, ...]:
    """[N, H, W, C] of the images in arr_0; CorruptError when there are none."""
    kind = npz.kind("arr_0")
    shape = kind.shape if len(kind.shape) == 4 else (*kind.shape, 1)
    if kind.dtype != np.uint8 or len(shape) != 4 or min(shape) < 1 or shape[3] not in (1, 3):
        raise CorruptError(
            f"{printable(npz.location)} holds no images",
            where=f"arr_0 is {kind.dtype} {kind.shape}, not uint8 [N, height, width, 3]",
            remedy="give an npz as diffcli sample writes it",
        )
    return shape


def read_labels(npz: Npz, count: int) -> NDArray[np.int64]:
    """The class numbers in arr_1, int64 [count]; CorruptError when they cannot be such."""
    labels = npz.array("arr_1")
    usable = labels.shape == (count,) and np.issubdtype(labels.dtype, np.integer)
    if not usable or labels.min() < 0 or labels.max() >= _MOST_CLASSES:
        raise CorruptError(
            f"{printable(npz.location)} holds no usable labels",
            where=f"arr_1 is {labels.dtype} {labels.shape} for {count} images; classes count from 0",
            remedy="repair arr_1, or leave it out",
        )
    return labels.astype(np.int64)
