"""`prepare`: bring a source of images into the data home as a prepared dataset."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffcli import __version__
from diffcli.commands.interruption import StopRequests
from diffcli.config.sections import DataConfig, LabelSource, ResizeRecipe
from diffcli.data.prepared import PreparedDataset, content_hash, is_prepared, write_packed
from diffcli.data.sources.digits import SPLITS, DigitsSplit, read_digits
from diffcli.data.sources.folder import (
    Folder,
    SquareFormat,
    decoding_threads,
    list_images,
    no_progress,
    read_squares,
)
from diffcli.data.sources.image_files import open_images
from diffcli.data.staging import overwrite_refusal
from diffcli.durable import sha256
from diffcli.errors import InterruptedRunError, StorageError, UsageError
from diffcli.images.decode import printable
from diffcli.records.datasets import (
    DATASET_SCHEMA,
    DatasetRecord,
    PreparedSplit,
    PrepareProgress,
    PrepareResult,
)

_FOLDER_SPLIT = "train"
_LARGEST_SIZE = 4096
_ARCHIVE_SUFFIX = re.compile(r"(\.tar|\.tar\.gz|\.tgz|\.zip)$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class DigitsRequest:
    """Prepare the embedded digits; force: replace what is there."""

    home: Path
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class FolderRequest:
    """Prepare a folder of images, or an archive of one.

    source: a directory, or a tar, tar.gz or zip file; size: height and width, pixels; channels: 1 gray, 3
    RGB; name: "" stands for `default_name`; force: replace what is there.
    """

    home: Path
    source: Path
    size: int
    recipe: ResizeRecipe = DataConfig.resize_recipe
    labels: LabelSource = DataConfig.labels
    channels: int = DataConfig.channels
    name: str = ""
    force: bool = False


def _no_notice(_signal_number: int) -> None:
    return None


def prepare_digits(request: DigitsRequest, *, progress: PrepareProgress = no_progress) -> PrepareResult:
    """Write both splits of the digits, or find them already there and intact.

    Errors: CorruptError when they are there and damaged, UsageError when something else has their name,
    StorageError, LockedError.
    """
    splits = [read_digits(split) for split in SPLITS]
    total = sum(split.facts.count for split in splits)
    done = 0
    results = []
    for split in splits:
        results.append(_prepare_digits_split(request, split))
        done += split.facts.count
        progress(done, total)
    return PrepareResult(name="digits", splits=tuple(results))


def prepare_folder(
    request: FolderRequest,
    *,
    progress: PrepareProgress = no_progress,
    on_stop: Callable[[int], None] = _no_notice,
) -> PrepareResult:
    """Decode, resize and write every image of a folder or archive on all CPU cores.

    `on_stop` is called at once with the signal that asks to stop. Errors: MissingError, CorruptError for a
    bad archive or with all bad images, UsageError for a size, a name or a dataset that is already there,
    StorageError, LockedError, InterruptedRunError. After any of them nothing half-made is left. Main thread
    only.
    """
    started_at = time.perf_counter()
    _check_format(request)
    name = _checked_name(request.name or default_name(request.source, request.size))
    target = request.home / name / _FOLDER_SPLIT
    if target.exists() and not request.force:
        raise overwrite_refusal(target)
    with open_images(request.source, scratch=_existing(request.home)) as tree:
        folder = list_images(tree, request.labels)
        facts = _folder_facts(request, name, folder)
        _check_space(request.home, facts)
        with StopRequests(on_request=on_stop) as stop, _decoding_pool() as pool:
            record = write_packed(
                target,
                facts,
                _blocks(request, folder, pool, _stoppable(progress, stop)),
                folder.classes.labels if folder.classes else None,
                replace=request.force,
            )
    split = _prepared_split(target, record, seconds=time.perf_counter() - started_at, already_there=False)
    return PrepareResult(name=name, splits=(split,), passed_over=tree.passed_over)


def default_name(source: Path, size: int) -> str:
    """The dataset name for a folder or archive: its own name and the size, such as `cats_64`."""
    own = source.resolve().name
    if not source.is_dir():
        own = _ARCHIVE_SUFFIX.sub("", own)
    plain = re.sub(r"[^\w.-]+", "_", own).strip("._-")
    return f"{plain or 'images'}_{size}"


def _prepare_digits_split(request: DigitsRequest, split: DigitsSplit) -> PreparedSplit:
    started_at = time.perf_counter()
    target = request.home / split.facts.name / split.facts.split
    there = is_prepared(target) and not request.force
    if there:
        record = _intact_digits(target, split)
    else:
        record = write_packed(target, split.facts, [split.images], split.labels, replace=request.force)
    return _prepared_split(target, record, seconds=time.perf_counter() - started_at, already_there=there)


def _intact_digits(target: Path, split: DigitsSplit) -> DatasetRecord:
    """The record of the digits that are there; an error when they are other images or damaged."""
    dataset = PreparedDataset(target)
    dataset.require_intact()
    if dataset.content_hash != content_hash(split.facts, split.images, split.labels):
        raise UsageError(f"{target} holds other images than the digits", remedy="--force replaces them")
    return dataset.record


def _blocks(
    request: FolderRequest, folder: Folder, pool: ThreadPoolExecutor, progress: PrepareProgress
) -> Iterator[NDArray[np.uint8]]:
    square = SquareFormat(resolution=request.size, recipe=request.recipe, channels=request.channels)
    paths = [file.path for file in folder.files]
    for pixels in read_squares(folder.tree, paths, square, pool, progress):
        yield pixels[np.newaxis]


def _stoppable(progress: PrepareProgress, stop: StopRequests) -> PrepareProgress:
    """The same progress, which ends with InterruptedRunError once a signal asks to stop."""

    def report(done: int, total: int) -> None:
        progress(done, total)
        if stop.signal_number:
            raise InterruptedRunError(
                f"stopped after {done} of {total} images; nothing was written",
                signal_number=stop.signal_number,
                remedy="the same command starts again from the first image",
            )

    return report


@contextmanager
def _decoding_pool() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(decoding_threads(), thread_name_prefix="decode")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _folder_facts(request: FolderRequest, name: str, folder: Folder) -> DatasetRecord:
    archived = request.source.is_file()
    image_bytes = sum(file.size_bytes for file in folder.files)
    return DatasetRecord(
        schema=DATASET_SCHEMA,
        name=name,
        variant="",
        split=_FOLDER_SPLIT,
        split_rule=f"all images of the {'archive' if archived else 'folder'}",
        count=len(folder.files),
        height=request.size,
        width=request.size,
        channels=request.channels,
        class_names=folder.classes.names if folder.classes else (),
        label_source=folder.label_source,
        resize_recipe=request.recipe,
        source_url=request.source.resolve().as_uri(),
        source_bytes=request.source.stat().st_size if archived else image_bytes,
        source_sha256=sha256(request.source) if archived else "",
        content_hash="",
        diffcli_version=__version__,
    )


def _prepared_split(
    target: Path, record: DatasetRecord, *, seconds: float, already_there: bool
) -> PreparedSplit:
    return PreparedSplit(
        path=target,
        split=record.split,
        count=record.count,
        height=record.height,
        width=record.width,
        channels=record.channels,
        class_names=record.class_names,
        label_source=record.label_source,
        size_bytes=sum(file.stat().st_size for file in target.iterdir()),
        seconds=seconds,
        already_there=already_there,
    )


def _check_format(request: FolderRequest) -> None:
    if not 1 <= request.size <= _LARGEST_SIZE:
        raise UsageError(
            f"--size is {request.size}", remedy=f"give a number of pixels from 1 to {_LARGEST_SIZE}"
        )
    if request.channels not in (1, 3):
        raise UsageError(f"--channels is {request.channels}", remedy="give 1 for gray or 3 for RGB")


def _checked_name(name: str) -> str:
    if name != printable(name) or "/" in name or name.startswith("."):
        raise UsageError(
            f"{printable(name)!r} cannot name a dataset",
            where="--name",
            remedy="use a name without slashes and control characters that does not begin with a dot",
        )
    return name


def _check_space(home: Path, facts: DatasetRecord) -> None:
    """StorageError before hours of decoding, when the result cannot fit."""
    needed_bytes = facts.count * facts.height * facts.width * facts.channels
    existing = _existing(home)
    free_bytes = shutil.disk_usage(existing).free
    if needed_bytes > free_bytes:
        raise StorageError(
            f"the dataset needs {needed_bytes / 1e9:.1f} GB, but there are {free_bytes / 1e9:.1f} GB free in "
            f"{printable(existing)}",
            remedy="free some space on that disk, or choose another data home",
        )


def _existing(home: Path) -> Path:
    """The data home, or the nearest directory above it that is there already."""
    return next(path for path in (home, *home.absolute().parents) if path.is_dir())
