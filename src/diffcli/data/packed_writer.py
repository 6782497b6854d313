"""The packed format of a prepared dataset, written image by image, and taken up again after a kill."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from diffcli.data.content_hash import ContentHash, bytes_of
from diffcli.data.prepared import IMAGES_FILE
from diffcli.data.sources.source import ImageSource
from diffcli.data.squares import SquareFormat, squared
from diffcli.data.staging import Staging
from diffcli.data.writer import SECONDS_BETWEEN_SYNCS, Check, Written
from diffcli.durable import storage_errors
from diffcli.records.datasets import DatasetRecord

_REREAD_BYTES = 2**24


class PackedWriter:
    """Writes images.npy. Implements `Writer`."""

    def __init__(
        self, staging: Staging, facts: DatasetRecord, square: SquareFormat, file: BinaryIO, done: int
    ) -> None:
        """file: holds the header and `done` images, and stands behind the header."""
        self.done = done
        self._staging = staging
        self._square = square
        self._shape = (facts.height, facts.width, facts.channels)
        self._file = file
        self._digest = ContentHash(facts)
        self._synced_at = time.monotonic()

    def read_again(self, check: Check) -> None:
        """Work out the hash of the images that are there already."""
        image_bytes = int(np.prod(self._shape))
        left_bytes = self.done * image_bytes
        with storage_errors(self._staging.directory):
            while left_bytes:
                check(self.done - left_bytes // image_bytes)
                block = self._file.read(min(left_bytes, _REREAD_BYTES))
                self._digest.add(block)
                left_bytes -= len(block)
            # a file is not written where it was read to without this
            self._file.seek(0, os.SEEK_CUR)

    def make(self, source: ImageSource, index: int) -> NDArray[np.uint8]:
        """The pixels of an image, uint8 [H, W, C]."""
        return squared(source.image(index), self._square)

    def add(self, made: NDArray[np.uint8]) -> None:
        """As `Writer`."""
        assert made.dtype == np.uint8
        assert made.shape == self._shape
        pixels = bytes_of(made)
        with storage_errors(self._staging.directory):
            self._file.write(pixels)
        self._digest.add(pixels)
        self.done += 1
        if time.monotonic() - self._synced_at >= SECONDS_BETWEEN_SYNCS:
            self.keep()

    def keep(self) -> None:
        """As `Writer`."""
        with storage_errors(self._staging.directory):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._staging.keep(self.done)
        self._synced_at = time.monotonic()

    def finish(self, labels: NDArray[np.int64] | None) -> Written:
        """As `Writer`."""
        self.keep()
        return Written(content_hash=self._digest.finished(labels))


@contextlib.contextmanager
def packed_writer(
    staging: Staging, facts: DatasetRecord, square: SquareFormat, check: Check
) -> Iterator[PackedWriter]:
    """A writer that goes on behind what is durable in the staging directory; facts: count and size."""
    path = staging.directory / IMAGES_FILE
    shape = (facts.count, facts.height, facts.width, facts.channels)
    header = _header(shape)
    kept_bytes = len(header) + staging.done * int(np.prod(shape[1:]))
    if staging.done and not (path.is_file() and path.stat().st_size >= kept_bytes):
        staging.start_anew()
    # not through a memory map: there a full disk is a signal, not an error
    with storage_errors(path):
        file = path.open("r+b" if staging.done else "wb")
    try:
        with storage_errors(path):
            file.write(header)
            file.flush()
            file.truncate(kept_bytes if staging.done else len(header))
        writer = PackedWriter(staging, facts, square, file, staging.done)
        writer.read_again(check)
        yield writer
    finally:
        # what is to last has been flushed; the rest may not fit on the disk
        with contextlib.suppress(OSError):
            file.close()


def _header(shape: tuple[int, ...]) -> bytes:
    """The beginning of a .npy file of uint8."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()
