"""A prepared dataset in tar shards: images found through an index and decoded when they are read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from diffcli.data.record_file import damaged, mapped_array, read_labels, read_record, reading
from diffcli.data.shard_files import (
    INDEX_FILE,
    SHARD_END,
    UnexpectedBytesError,
    images_in_shard,
    shard_layout,
    shard_path,
)
from diffcli.data.shard_writer import hash_of_shards
from diffcli.data.squares import decoding_threads, gathered
from diffcli.errors import CorruptError
from diffcli.images.decode import decoded_content
from diffcli.images.encode import SUFFIX_OF
from diffcli.records.datasets import PrepareProgress, no_progress

_OPEN_FILES = 128
_DECODED_AT_ONCE = 256
_DECODED_AT_ONCE_BYTES = 2**27


class ShardedDataset:
    """A prepared dataset on disk whose images are encoded. Implements `Dataset`; thread-safe."""

    weak_hash = False

    def __init__(self, directory: Path) -> None:
        """Open and check everything but the images; CorruptError when something is not as the record says."""
        record = read_record(directory)
        if record.encoding not in SUFFIX_OF or record.images_per_shard < 1:
            raise damaged(directory, "dataset.json names an unknown encoding, or no images per shard")
        self.location = directory
        self.record = record
        self.count = record.count
        self.height = record.height
        self.width = record.width
        self.channels = record.channels
        self.class_names = record.class_names
        self.content_hash = self.identity = record.content_hash
        self._labels = read_labels(directory, record)
        self._layout = shard_layout(record, self._labels)
        self._index = self._checked_index()
        self._file = lru_cache(_OPEN_FILES)(self._opened)
        self._pool = ThreadPoolExecutor(decoding_threads(), thread_name_prefix="decode")

    def read(self, indices: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Decode images: int64 [N] -> uint8 [N, H, W, C]; CorruptError lists the bad ones."""
        if out is None:
            out = np.empty((len(indices), self.height, self.width, self.channels), dtype=np.uint8)
        gathered(self, indices, out, self._pool)
        return out

    def labels(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Class numbers: int64 [N] -> int64 [N]; only of a dataset that has class names."""
        assert self._labels is not None
        return np.asarray(self._labels[indices])

    def name(self, index: int) -> str:
        """What errors call an image: its member in its shard."""
        shard = index // self._layout.images_per_shard
        return f"{shard_path(self.location, shard).name}/{index:09d}.{self._layout.suffix}"

    def read_one(self, index: int, out: NDArray[np.uint8]) -> None:
        """Decode one image into uint8 [H, W, C]; CorruptError when it is not what the record says."""
        image = decoded_content(self._content(index), f"image {index}")
        if image.size != (self.width, self.height):
            raise CorruptError(f"{image.width}x{image.height} pixels in place of {self.width}x{self.height}")
        mode = "L" if self.channels == 1 else "RGB"
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
        out[...] = pixels.reshape(out.shape)

    def verified(self) -> Iterator[int]:
        """Read every byte, decode every image, and tell the images done; CorruptError names what is wrong."""
        self._require_intact_record()
        image_bytes = self.height * self.width * self.channels
        at_once = max(1, min(_DECODED_AT_ONCE, _DECODED_AT_ONCE_BYTES // image_bytes))
        done = 0
        for shard in range(self._layout.shards):
            self._require_intact_shard(shard)
            images = self._layout.images(shard)
            for start in images[::at_once]:
                part = np.arange(start, min(start + at_once, images.stop))
                self.read(part)
                done += len(part)
                yield done

    def require_intact(self, progress: PrepareProgress = no_progress) -> None:
        """Read every byte, telling the images; CorruptError names the first shard that has changed."""
        self._require_intact_record()
        for shard in range(self._layout.shards):
            self._require_intact_shard(shard)
            progress(self._layout.images(shard).stop, self.count)

    def _require_intact_record(self) -> None:
        if hash_of_shards(self.record, self.record.shard_sha256, self._labels) != self.content_hash:
            raise damaged(self.location, "its labels or dataset.json have changed since it was prepared")

    def _require_intact_shard(self, shard: int) -> None:
        path, digest = shard_path(self.location, shard), hashlib.sha256()
        images = self._layout.images(shard)
        rows = self._index[images.start : images.stop]
        try:
            with reading(path), path.open("rb") as file:
                for image in images_in_shard(file, self._layout, images, digest):
                    row = rows[image.number - images.start]
                    if row.tolist() != [shard, image.offset, len(image.content)]:
                        raise damaged(self.location, f"{INDEX_FILE} is wrong for image {image.number}")
                behind = file.read(len(SHARD_END) + 1)
        except UnexpectedBytesError as error:
            raise damaged(self.location, f"{path.name}: {error}") from error
        digest.update(behind)
        if digest.hexdigest() != self.record.shard_sha256[shard]:
            raise damaged(self.location, f"{path.name} has changed since it was prepared")

    def _checked_index(self) -> NDArray[np.int64]:
        """Shard, offset and length of each image, int64 [count, 3], all inside of files that are there."""
        shards = self._layout.shards
        if len(self.record.shard_sha256) != shards:
            found = len(self.record.shard_sha256)
            raise damaged(self.location, f"dataset.json names {found} shards, {shards} hold its images")
        index = np.array(mapped_array(self.location / INDEX_FILE, np.dtype(np.int64), (self.count, 3)))
        sizes = np.array([self._shard_bytes(shard) for shard in range(shards)], dtype=np.int64)
        expected = np.arange(self.count) // self._layout.images_per_shard
        shard, offset, length = index.T
        wrong = (shard != expected) | (offset < 0) | (length < 1)
        wrong |= offset > sizes[expected] - np.clip(length, 1, None)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise damaged(
                self.location, f"{INDEX_FILE}: image {first} lies outside of its shard, or the shard is cut"
            )
        return index

    def _shard_bytes(self, shard: int) -> int:
        path = shard_path(self.location, shard)
        try:
            status = path.stat()
        except OSError as error:
            raise damaged(self.location, f"{path.name} is missing") from error
        if not stat.S_ISREG(status.st_mode):
            raise damaged(self.location, f"{path.name} is no file")
        return status.st_size

    def _opened(self, shard: int) -> BinaryIO:
        path = shard_path(self.location, shard)
        with reading(path):
            return path.open("rb", buffering=0)

    def _content(self, index: int) -> bytes:
        shard, offset, length = self._index[index].tolist()
        # the reference keeps the file open, should the cache drop it in the meantime
        file = self._file(shard)
        with reading(self.location):
            content = os.pread(file.fileno(), length, offset)
        if len(content) != length:
            raise CorruptError("its shard is cut")
        return content
