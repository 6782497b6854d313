"""Tar shards as webdataset reads them: image 42 is `000000042.jpg`, its class is in `000000042.cls`."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from diffcli.images.encode import SUFFIX_OF
from diffcli.records.datasets import DatasetRecord

INDEX_FILE = "index.npy"
SHARD_END = bytes(2 * tarfile.BLOCKSIZE)
# so that files have a few hundred megabytes
_SHARD_PIXELS = 2**28
_SIZE_FIELD = slice(124, 135)


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardLayout:
    """Which image is in which shard, under which names; labels: int64 [count], or None."""

    count: int
    images_per_shard: int
    suffix: str
    labels: NDArray[np.int64] | None

    @property
    def shards(self) -> int:
        """Their number."""
        return -(-self.count // self.images_per_shard)

    def images(self, shard: int) -> range:
        """The images of a shard."""
        start = shard * self.images_per_shard
        return range(start, min(start + self.images_per_shard, self.count))

    def image_header(self, image: int, length: int) -> bytes:
        """What stands before the bytes of an image."""
        return _header(f"{image:09d}.{self.suffix}", length)

    def behind(self, image: int, length: int) -> bytes:
        """What stands behind the bytes of an image: padding, and the member with its class."""
        padding = bytes(-length % tarfile.BLOCKSIZE)
        if self.labels is None:
            return padding
        label = str(self.labels[image]).encode()
        return padding + _header(f"{image:09d}.cls", len(label)) + label.ljust(tarfile.BLOCKSIZE, b"\0")


@dataclass(frozen=True, kw_only=True)
class ShardImage:
    """One image in a shard: the place of its bytes, and those bytes."""

    number: int
    offset: int
    content: bytes


class UnexpectedBytesError(Exception):
    """A shard does not hold what its layout says; told in words for its reader."""


def images_per_shard(size: int) -> int:
    """The images of this height and width, pixels, that new shards hold: 4,096 of 256x256."""
    return max(1, _SHARD_PIXELS // size**2)


def shard_layout(record: DatasetRecord, labels: NDArray[np.int64] | None) -> ShardLayout:
    """The layout of a dataset in shards."""
    return ShardLayout(
        count=record.count,
        images_per_shard=record.images_per_shard,
        suffix=SUFFIX_OF[record.encoding],
        labels=labels,
    )


def shard_path(directory: Path, shard: int) -> Path:
    """The file of a shard."""
    return directory / f"shard-{shard:06d}.tar"


def images_in_shard(
    file: BinaryIO, layout: ShardLayout, images: range, digest: hashlib._Hash
) -> Iterator[ShardImage]:
    """Read a shard from its beginning, adding every byte to the digest; the file is left behind the images.

    UnexpectedBytesError when it holds anything else.
    """
    offset = 0
    for number in images:
        header = file.read(tarfile.BLOCKSIZE)
        length = _length(header)
        if length is None or header != layout.image_header(number, length):
            raise UnexpectedBytesError(f"image {number} is not where it should be")
        content = file.read(length)
        behind = layout.behind(number, length)
        if len(content) != length or file.read(len(behind)) != behind:
            raise UnexpectedBytesError(f"image {number} is cut, or its label is another")
        for part in (header, content, behind):
            digest.update(part)
        offset += len(header)
        yield ShardImage(number=number, offset=offset, content=content)
        offset += length + len(behind)


def _header(name: str, length: int) -> bytes:
    """The same for the same image, whenever and by whomever it is written."""
    info = tarfile.TarInfo(name)
    info.size = length
    return info.tobuf(tarfile.USTAR_FORMAT)


def _length(header: bytes) -> int | None:
    try:
        return int(header[_SIZE_FIELD], 8)
    except ValueError:
        return None
