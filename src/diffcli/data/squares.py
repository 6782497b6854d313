"""Images of a source brought to squares of one size, by all cores, a bounded number ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcli.config.sections import ResizeRecipe
from diffcli.data.sources.source import ImageSource
from diffcli.errors import CorruptError, StorageError
from diffcli.images.decode import printable
from diffcli.images.resize import Crop, Size, boxed_square, center_crop, cropped_square
from diffcli.records.datasets import PrepareProgress, no_progress

_BAD_SHOWN = 10
# Images decoded ahead for each thread: enough to keep it busy, few enough to bound the memory.
_AHEAD_PER_THREAD = 4
# Parts of a batch for each thread, so that none waits long for another's.
_PARTS_PER_THREAD = 4

# box: as LSUN was exported; "": the images have the size already, and none is resized
SquareRecipe = ResizeRecipe | Literal["box", ""]
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class SquareFormat:
    """What every image is brought to: height and width in pixels, channels 1 gray or 3 RGB."""

    resolution: int
    recipe: SquareRecipe
    channels: int


def squared(image: Image.Image, square: SquareFormat) -> NDArray[np.uint8]:
    """The central square of an image: uint8 [H, W, C]; CorruptError when it cannot be brought to it."""
    side, recipe = square.resolution, square.recipe
    if image.size == (side, side):
        # the same by all recipes, in a fraction of the time
        whole = Crop(side=side, top=0, left=0)
        return cropped_square(image, side, whole, recipe="guided", channels=square.channels)
    if not recipe:
        raise CorruptError(f"{image.width}x{image.height} in place of {side}x{side} pixels")
    if recipe == "box":
        return boxed_square(image, side, channels=square.channels)
    crop = center_crop(Size(*image.size), side)
    return cropped_square(image, side, crop, recipe=recipe, channels=square.channels)


def made_ahead(
    source: ImageSource,
    indices: Sequence[int],
    make: Callable[[int], Made],
    pool: ThreadPoolExecutor,
    progress: PrepareProgress = no_progress,
) -> Iterator[Made]:
    """What `make` makes of each image, in order, a few ahead in the threads of the pool.

    After the first bad image nothing more is yielded, but all are still made; then one CorruptError lists
    the bad ones by name.
    """
    bad: list[str] = []
    for done, ahead in enumerate(_ahead(indices, make, pool), start=1):
        try:
            made = ahead.future.result()
        except (CorruptError, StorageError) as error:
            bad.append(f"{printable(source.name(ahead.index))}: {error.what}")
        if not bad:
            yield made
        # when this is told, the image has been taken
        progress(done, len(indices))
    if bad:
        raise _bad_images(source.location, bad, len(indices))


class PixelReader(Protocol):
    """Images of one size by index."""

    @property
    def location(self) -> Path:
        """As errors call it."""

    def name(self, index: int) -> str:
        """What errors call an image."""

    def read_one(self, index: int, out: NDArray[np.uint8]) -> None:
        """Fill uint8 [H, W, C]; CorruptError or StorageError."""


@dataclass(frozen=True, kw_only=True)
class BadImage:
    """An image that cannot be used, and why."""

    index: int
    reason: str


class Fill(Protocol):
    """Whatever can read a few images."""

    def __call__(self, reader: PixelReader, indices: Sequence[int], out: NDArray[np.uint8]) -> list[BadImage]:
        """Fill uint8 [n, H, W, C], any content for the bad ones."""


def filled(reader: PixelReader, indices: Sequence[int], out: NDArray[np.uint8]) -> list[BadImage]:
    """Read images one by one in this thread. Implements `Fill`."""
    bad = []
    for index, pixels in zip(indices, out, strict=True):
        try:
            reader.read_one(index, pixels)
        except (CorruptError, StorageError) as error:
            bad.append(BadImage(index=index, reason=error.what))
    return bad


def gathered(
    reader: PixelReader,
    indices: NDArray[np.int64],
    out: NDArray[np.uint8],
    pool: ThreadPoolExecutor,
    *,
    fill: Fill = filled,
    smallest_part: int = 1,
) -> None:
    """Read images into uint8 [N, H, W, C] in the threads of the pool; CorruptError lists all bad ones.

    fill: called by the threads for parts of the batch; smallest_part: images, unless it is the last.
    """
    numbers = indices.tolist()
    share = max(smallest_part, -(-len(numbers) // (_PARTS_PER_THREAD * decoding_threads())))
    parts = [slice(start, start + share) for start in range(0, len(numbers), share)]
    bad = [
        f"{printable(reader.name(image.index))}: {image.reason}"
        for images in pool.map(lambda part: fill(reader, numbers[part], out[part]), parts)
        for image in images
    ]
    if bad:
        raise _bad_images(reader.location, bad, len(numbers))


def _bad_images(location: Path, bad: list[str], total: int) -> CorruptError:
    more = [f"and {len(bad) - _BAD_SHOWN} more"] if len(bad) > _BAD_SHOWN else []
    return CorruptError(
        f"{len(bad)} of {total} images in {printable(location)} cannot be used",
        where="\n".join(bad[:_BAD_SHOWN] + more),
        remedy="repair or remove them, then try again",
    )


def decoding_threads() -> int:
    """The CPU cores this process may use, which the ranks of one machine share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@contextmanager
def decoding_pool() -> Iterator[ThreadPoolExecutor]:
    """A thread for each core; leaving it drops what has not begun."""
    pool = ThreadPoolExecutor(decoding_threads(), thread_name_prefix="decode")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class _Ahead(Generic[Made]):
    index: int
    future: Future[Made]


def _ahead(
    indices: Sequence[int], make: Callable[[int], Made], pool: ThreadPoolExecutor
) -> Iterator[_Ahead[Made]]:
    """The indices in order, each with its image under way, a bounded number ahead."""
    under_way: deque[_Ahead[Made]] = deque()
    remaining = iter(indices)
    ahead = _AHEAD_PER_THREAD * decoding_threads()
    try:
        while True:
            for index in islice(remaining, ahead - len(under_way)):
                under_way.append(_Ahead(index=index, future=pool.submit(make, index)))
            if not under_way:
                return
            yield under_way.popleft()
    finally:
        for left in under_way:
            left.future.cancel()
