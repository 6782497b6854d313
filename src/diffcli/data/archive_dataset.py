"""The images of an npz file as a dataset, however many: arr_0 the pixels, arr_1 the labels if any."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffcli.data.sources.archives import opened
from diffcli.data.sources.npz_arrays import Npz, UnpackedRows
from diffcli.data.sources.npz_images import image_shape, read_labels
from diffcli.data.stored_arrays import mapped_array


class ArchiveDataset:
    """Images that lie in an npz file, or unpacked beside it, and not in memory. Implements `Dataset`.

    class_names: the numbers of the classes as text, () without labels.
    """

    weak_hash = False

    def __init__(
        self,
        location: Path,
        shape: tuple[int, ...],
        rows: Callable[[int], bytes],
        labels: NDArray[np.int64] | None,
    ) -> None:
        """shape: [N, H, W, C]; rows: the pixels of an image, as bytes."""
        self.location = location
        self.count, self.height, self.width, self.channels = shape
        classes = 0 if labels is None else 1 + int(labels.max())
        self.class_names = tuple(map(str, range(classes)))
        self._shape = shape[1:]
        self._rows = rows
        self._labels = labels
        self.content_hash = self.identity = self._hashed()

    def read(self, indices: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `Dataset`."""
        if out is None:
            out = np.empty((len(indices), *self._shape), dtype=np.uint8)
        for place, index in enumerate(indices.tolist()):
            out[place] = np.frombuffer(self._rows(index), np.uint8).reshape(self._shape)
        return out

    def labels(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """As `Dataset`."""
        assert self._labels is not None
        return self._labels[indices]

    def _hashed(self) -> str:
        """SHA-256 over shape and pixels: labels decide no feature."""
        digest = hashlib.sha256(json.dumps([self.count, *self._shape]).encode())
        for index in range(self.count):
            digest.update(self._rows(index))
        return digest.hexdigest()


@contextlib.contextmanager
def open_archive_dataset(path: Path, *, scratch: Path) -> Iterator[ArchiveDataset]:
    """uint8 [N, H, W, 3], [N, H, W, 1] or [N, H, W] in arr_0, integers [N] from 0 in arr_1 if it is there.

    scratch: a directory with room for the pixels of a compressed archive. Errors: MissingError, StorageError,
    CorruptError.
    """
    with opened(path) as file:
        npz = Npz(file, path)
        shape = image_shape(npz)
        labels = read_labels(npz, shape[0]) if "arr_1" in npz.names else None
        yield ArchiveDataset(path, shape, _rows_of(npz, path, shape, scratch), labels)


def _rows_of(npz: Npz, path: Path, shape: tuple[int, ...], scratch: Path) -> Callable[[int], bytes]:
    """The pixels of an image, where they lie if they are not compressed."""
    mapped = mapped_array(path, "arr_0")
    if mapped is None:
        return UnpackedRows(npz, "arr_0", math.prod(shape[1:]), scratch).row
    pixels = mapped
    return lambda index: pixels[index].tobytes()
