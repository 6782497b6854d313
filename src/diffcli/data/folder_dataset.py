"""A plain folder of images as a dataset, without `prepare`: decoded again whenever an image is read."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffcli.config.sections import DataConfig
from diffcli.data.decoding_processes import FEWEST_AT_ONCE, DecodingProcesses, worth_processes
from diffcli.data.sources.folder import Folder, FolderSource, read_folder
from diffcli.data.squares import SquareFormat, decoding_threads, gathered, squared


class FolderDataset:
    """Images of a folder, brought to the configured resolution by centre crop. Implements `Dataset`.

    The content hash covers relative paths and sizes only, so it is weak: an image edited in place to the same
    size goes unnoticed. Images are decoded in threads; small ones, once many have been read, in processes.
    """

    weak_hash = True

    def __init__(self, root: Path, config: DataConfig, *, resized: bool = True) -> None:
        """List the folder; errors are those of `read_folder`; resized: or else other sizes are refused."""
        folder = read_folder(root, config.labels)
        self._source = FolderSource(folder)
        self.location = root
        self.count = self._source.count
        self.height = self.width = config.resolution
        self.channels: int = config.channels
        self.class_names = self._source.facts.class_names
        self.content_hash = _weak_hash(folder)
        self.identity = self._source.identity()
        self._square = SquareFormat(
            resolution=config.resolution,
            recipe=config.resize_recipe if resized else "",
            channels=config.channels,
        )
        self._pool = ThreadPoolExecutor(decoding_threads(), thread_name_prefix="decode")
        mean_bytes = sum(folder.files.sizes_bytes) / self.count
        self._processes = DecodingProcesses(root, self._square) if worth_processes(mean_bytes) else None

    def read(self, indices: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Decode images: int64 [N] -> uint8 [N, H, W, C]; CorruptError lists the bad ones by path."""
        if out is None:
            out = np.empty((len(indices), self.height, self.width, self.channels), dtype=np.uint8)
        if self._processes is not None and self._processes.running(len(indices)):
            fill = self._processes.fill
            gathered(self, indices, out, self._pool, fill=fill, smallest_part=FEWEST_AT_ONCE)
        else:
            gathered(self, indices, out, self._pool)
        return out

    def name(self, index: int) -> str:
        """The path of an image below the folder."""
        return self._source.name(index)

    def read_one(self, index: int, out: NDArray[np.uint8]) -> None:
        """Decode one image into uint8 [H, W, C]; CorruptError or StorageError."""
        out[...] = squared(self._source.image(index), self._square)

    def labels(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Class numbers: int64 [N] -> int64 [N]; only of a dataset that has class names."""
        assert self._source.labels is not None
        return self._source.labels[indices]


def _weak_hash(folder: Folder) -> str:
    digest = hashlib.sha256()
    for file in folder.files:
        # a length in front, since a path may hold any other separator
        path = file.path.encode(errors="surrogateescape")
        digest.update(b"%d %d " % (len(path), file.size_bytes) + path)
    if folder.label_source == "dataset.json" and folder.classes is not None:
        digest.update(folder.classes.labels.tobytes())
    return digest.hexdigest()
