"""Tar shards of encoded images, written image by image, and taken up again after a kill."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcli.data.content_hash import ContentHash
from diffcli.data.shard_files import (
    INDEX_FILE,
    SHARD_END,
    ShardLayout,
    UnexpectedBytesError,
    images_in_shard,
    shard_path,
)
from diffcli.data.sources.source import ImageSource
from diffcli.data.squares import SquareFormat, squared
from diffcli.data.staging import Staging
from diffcli.data.writer import SECONDS_BETWEEN_SYNCS, Check, Written
from diffcli.durable import storage_errors
from diffcli.images.encode import EncodingChoice, encoded
from diffcli.records.datasets import DatasetRecord

_JPEG_START = b"\xff\xd8\xff"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ShardJob:
    """What shards are to hold; facts: count and size."""

    facts: DatasetRecord
    layout: ShardLayout
    square: SquareFormat
    encoding: EncodingChoice


class ShardWriter:
    """Writes shard-000000.tar and so on, and index.npy. Implements `Writer`."""

    def __init__(self, staging: Staging, job: ShardJob) -> None:
        self.done = 0
        self._staging = staging
        self._job = job
        # shard, offset and length of each image
        self._index = np.zeros((job.facts.count, 3), dtype=np.int64)
        self._sha256: list[str] = []
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._synced_at = time.monotonic()

    def take_up(self, check: Check) -> None:
        """Read again what is durable in the staging directory, and stand behind it."""
        layout = self._job.layout
        for shard in range(layout.shards):
            images = layout.images(shard)
            kept = images[: max(0, self._staging.done - images.start)]
            if not kept:
                return
            path = shard_path(self._staging.directory, shard)
            if not path.is_file():
                raise UnexpectedBytesError(f"{path.name} is missing")
            with storage_errors(path):
                self._file = path.open("r+b")
                for image in images_in_shard(self._file, layout, kept, self._digest):
                    check(image.number)
                    self._note(image.offset, len(image.content))
                self._file.truncate(self._file.tell())
            if kept == images:
                self._end_shard()

    def make(self, source: ImageSource, index: int) -> bytes:
        """The encoded image; a JPEG that has the size already is stored as it is, to lose nothing twice."""
        image = source.image(index)
        if self._could_stay(image):
            content = source.encoded(index)
            if content is not None and content.startswith(_JPEG_START):
                return content
        return encoded(squared(image, self._job.square), self._job.encoding)

    def add(self, made: bytes) -> None:
        """As `Writer`."""
        layout, number = self._job.layout, self.done
        images = layout.images(number // layout.images_per_shard)
        with storage_errors(self._staging.directory):
            if self._file is None:
                self._file = shard_path(self._staging.directory, len(self._sha256)).open("wb")
            header = layout.image_header(number, len(made))
            offset = self._file.tell() + len(header)
            for part in (header, made, layout.behind(number, len(made))):
                self._file.write(part)
                self._digest.update(part)
        self._note(offset, len(made))
        if self.done == images.stop:
            self._end_shard()
        if time.monotonic() - self._synced_at >= SECONDS_BETWEEN_SYNCS:
            self.keep()

    def keep(self) -> None:
        """As `Writer`."""
        if self._file is not None:
            with storage_errors(self._staging.directory):
                self._file.flush()
                os.fsync(self._file.fileno())
        self._staging.keep(self.done)
        self._synced_at = time.monotonic()

    def finish(self, labels: NDArray[np.int64] | None) -> Written:
        """As `Writer`."""
        self.keep()
        with storage_errors(self._staging.directory):
            np.save(self._staging.directory / INDEX_FILE, self._index, allow_pickle=False)
        return Written(
            content_hash=hash_of_shards(self._job.facts, self._sha256, labels),
            shard_sha256=tuple(self._sha256),
        )

    def close(self) -> None:
        """Close the file that is being written."""
        if self._file is not None:
            # what is to last has been flushed; the rest may not fit on the disk
            with contextlib.suppress(OSError):
                self._file.close()

    def _could_stay(self, image: Image.Image) -> bool:
        square = self._job.square
        mode = "L" if square.channels == 1 else "RGB"
        exact = image.size == (square.resolution, square.resolution) and image.mode == mode
        return exact and self._job.encoding.name == "jpeg"

    def _note(self, offset: int, length: int) -> None:
        self._index[self.done] = len(self._sha256), offset, length
        self.done += 1

    def _end_shard(self) -> None:
        assert self._file is not None
        with storage_errors(self._staging.directory):
            self._file.write(SHARD_END)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        self._digest.update(SHARD_END)
        self._sha256.append(self._digest.hexdigest())
        self._file, self._digest = None, hashlib.sha256()


@contextlib.contextmanager
def shard_writer(staging: Staging, job: ShardJob, check: Check) -> Iterator[ShardWriter]:
    """A writer that goes on behind what is durable in the staging directory."""
    writer = ShardWriter(staging, job)
    try:
        writer.take_up(check)
    except UnexpectedBytesError:
        writer.close()
        staging.start_anew()
        writer = ShardWriter(staging, job)
    try:
        yield writer
    finally:
        writer.close()


def hash_of_shards(
    facts: DatasetRecord, shard_sha256: list[str] | tuple[str, ...], labels: NDArray[np.int64] | None
) -> str:
    """The content hash of a dataset in shards, which covers their bytes by their own hashes."""
    digest = ContentHash(facts)
    for sha256 in shard_sha256:
        digest.add(bytes.fromhex(sha256))
    return digest.finished(labels)
