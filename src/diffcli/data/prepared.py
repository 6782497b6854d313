"""The packed format of a prepared dataset, read: images.npy, labels.npy and dataset.json in one directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffcli.data.content_hash import ContentHash, bytes_of
from diffcli.data.record_file import RECORD_FILE, damaged, mapped_array, read_labels, read_record
from diffcli.data.sources.label_files import is_label_file
from diffcli.records.datasets import PrepareProgress, no_progress

IMAGES_FILE = "images.npy"
_HASH_BLOCK_IMAGES = 1024


class PreparedDataset:
    """A prepared dataset on disk; images stay in a memory-mapped file. Implements `Dataset`."""

    weak_hash = False

    def __init__(self, directory: Path) -> None:
        """Open and check everything but the pixels; CorruptError when something is not as the record says."""
        record = read_record(directory)
        self.location = directory
        self.record = record
        self.count = record.count
        self.height = record.height
        self.width = record.width
        self.channels = record.channels
        self.class_names = record.class_names
        self.content_hash = self.identity = record.content_hash
        shape = (record.count, record.height, record.width, record.channels)
        # as a plain array: the wrapper of a memory map costs time at every access
        self._images = np.asarray(mapped_array(directory / IMAGES_FILE, np.dtype(np.uint8), shape))
        self._labels = read_labels(directory, record)

    def read(self, indices: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Copies of images: int64 [N] -> uint8 [N, H, W, C], which is `out` if that is given."""
        if out is None:
            out = np.empty((len(indices), *self._images.shape[1:]), dtype=np.uint8)
        # without `clip` numpy would fill a buffer of its own first, to leave `out` alone after an error
        assert not len(indices) or (indices.min() >= 0 and indices.max() < self.count)
        return self._images.take(indices, axis=0, out=out, mode="clip")

    def labels(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Class numbers: int64 [N] -> int64 [N]; only of a dataset that has class names."""
        assert self._labels is not None
        return np.asarray(self._labels[indices])

    def verified(self) -> Iterator[int]:
        """Read every pixel, telling the images done; CorruptError when they are not as they were written."""
        digest = ContentHash(self.record)
        for start in range(0, self.count, _HASH_BLOCK_IMAGES):
            block = self._images[start : start + _HASH_BLOCK_IMAGES]
            digest.add(bytes_of(block))
            if start + len(block) < self.count:
                yield start + len(block)
        if digest.finished(self._labels) != self.content_hash:
            raise damaged(self.location, "its images or labels have changed since they were prepared")
        yield self.count

    def require_intact(self, progress: PrepareProgress = no_progress) -> None:
        """Read every pixel, telling the images done; CorruptError when they have changed."""
        for done in self.verified():
            progress(done, self.count)


def is_prepared(directory: Path) -> bool:
    """Whether a directory is a prepared dataset, good or bad."""
    return (directory / RECORD_FILE).is_file() and not is_label_file(directory / RECORD_FILE)


def prepared_splits(home: Path, name: str) -> tuple[str, ...]:
    """The splits of a dataset under a data home, sorted; empty when there are none."""
    return tuple(sorted(path.name for path in (home / name).glob("[!.]*") if is_prepared(path)))


def prepared_names(home: Path) -> tuple[str, ...]:
    """The datasets prepared under a data home, sorted."""
    return tuple(sorted({path.parent.name for path in home.glob("[!.]*/[!.]*") if is_prepared(path)}))
