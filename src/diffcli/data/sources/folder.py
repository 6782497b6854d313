"""A folder of images, or an archive of one: what it holds, in which order, of which classes; its pixels."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffcli.config.sections import LabelSource, ResizeRecipe
from diffcli.data.sources.image_files import SUFFIXES, DirectoryTree, ImageFile, ImageTree, file_name
from diffcli.errors import CorruptError, MissingError, StorageError, UsageError
from diffcli.images.decode import printable
from diffcli.images.resize import Size, center_crop, cropped_square
from diffcli.records.datasets import LabelOrigin, PrepareProgress

_BAD_SHOWN = 10
# Images decoded ahead for each thread: enough to keep it busy, few enough to bound the memory.
_AHEAD_PER_THREAD = 4


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Sorted class names and the class number of each file, int64 [N]."""

    names: tuple[str, ...]
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The images of a folder in listing order; `classes` is None when their names tell none."""

    tree: ImageTree
    files: tuple[ImageFile, ...]
    classes: Classes | None
    label_source: LabelOrigin


@dataclass(frozen=True, kw_only=True)
class SquareFormat:
    """What every image is brought to: height and width in pixels, channels 1 gray or 3 RGB."""

    resolution: int
    recipe: ResizeRecipe
    channels: int


def read_folder(root: Path, labels: LabelSource) -> Folder:
    """List a directory; errors are MissingError when there is none, and those of `list_images`."""
    if not root.is_dir():
        what = f"{printable(root)} is not a directory" if root.exists() else f"there is no {printable(root)}"
        raise MissingError(what, remedy="give a folder of images")
    return list_images(DirectoryTree(root), labels)


def list_images(tree: ImageTree, labels: LabelSource) -> Folder:
    """List image files and work out their classes.

    Errors: MissingError when there is no image, UsageError when the directories tell no classes, and those of
    the tree.
    """
    files = tuple(tree.files())
    if not files:
        raise MissingError(
            f"{printable(tree.location)} holds no images", remedy=f"looked for {', '.join(sorted(SUFFIXES))}"
        )
    paths = [file.path for file in files]
    if labels == "directories":
        return Folder(tree=tree, files=files, classes=classes_by_directory(paths), label_source="directories")
    if not any("_" in file_name(path) for path in paths):
        return Folder(tree=tree, files=files, classes=None, label_source="none")
    return Folder(tree=tree, files=files, classes=classes_by_file_name(paths), label_source="filename")


def classes_by_file_name(paths: Sequence[str]) -> Classes:
    """The class is the file name up to its first underscore, all of it when there is none."""
    return _numbered([file_name(path).split("_")[0] for path in paths])


def classes_by_directory(paths: Sequence[str]) -> Classes:
    """The class is the topmost directory below the folder; UsageError for images that lie in none."""
    outside = [path for path in paths if "/" not in path]
    if outside:
        raise UsageError(
            f"{len(outside)} of {len(paths)} images lie in no directory that could be their class",
            where=f"the first: {printable(outside[0])}",
            remedy="move them into one directory per class, or use --labels filename",
        )
    return _numbered([path.split("/")[0] for path in paths])


def no_progress(_done: int, _total: int) -> None:
    """Tell nobody."""


def read_squares(
    tree: ImageTree,
    paths: Sequence[str],
    square: SquareFormat,
    pool: ThreadPoolExecutor,
    progress: PrepareProgress = no_progress,
) -> Iterator[NDArray[np.uint8]]:
    """Decode images fully, in order, a few ahead in the threads of the pool: uint8 [H, W, C] each.

    After the first bad image nothing more is yielded, but all are still decoded; then one CorruptError lists
    the bad ones by path.
    """
    bad: list[str] = []
    for done, (path, future) in enumerate(_decoded_ahead(tree, paths, square, pool), start=1):
        try:
            pixels = future.result()
        except (CorruptError, StorageError) as error:
            bad.append(f"{printable(path)}: {error.what}")
        progress(done, len(paths))
        if not bad:
            yield pixels
    if bad:
        more = [f"and {len(bad) - _BAD_SHOWN} more"] if len(bad) > _BAD_SHOWN else []
        raise CorruptError(
            f"{len(bad)} of {len(paths)} images in {printable(tree.location)} cannot be used",
            where="\n".join(bad[:_BAD_SHOWN] + more),
            remedy="repair or remove them, then try again",
        )


def decoding_threads() -> int:
    """The CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _decoded_ahead(
    tree: ImageTree, paths: Sequence[str], square: SquareFormat, pool: ThreadPoolExecutor
) -> Iterator[tuple[str, Future[NDArray[np.uint8]]]]:
    """The paths in order, each with its decoding under way, a bounded number ahead."""
    under_way: deque[tuple[str, Future[NDArray[np.uint8]]]] = deque()
    remaining = iter(paths)
    ahead = _AHEAD_PER_THREAD * decoding_threads()
    try:
        while True:
            for path in islice(remaining, ahead - len(under_way)):
                under_way.append((path, pool.submit(_read_square, tree, path, square)))
            if not under_way:
                return
            yield under_way.popleft()
    finally:
        for _, future in under_way:
            future.cancel()


def _read_square(tree: ImageTree, path: str, square: SquareFormat) -> NDArray[np.uint8]:
    image = tree.image(path)
    crop = center_crop(Size(*image.size), square.resolution)
    return cropped_square(image, square.resolution, crop, recipe=square.recipe, channels=square.channels)


def _numbered(classes: Sequence[str]) -> Classes:
    names = sorted(set(classes))
    number = {name: place for place, name in enumerate(names)}
    return Classes(
        names=tuple(printable(name) for name in names),
        labels=np.array([number[name] for name in classes], dtype=np.int64),
    )
