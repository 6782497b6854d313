"""Bring the splits of any source into the data home as a prepared dataset: what all forms of `prepare` do."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffcli import __version__
from diffcli.commands.interruption import StopRequests
from diffcli.data.prepared import PreparedDataset, is_prepared, write_packed
from diffcli.data.sources.source import ImageSource
from diffcli.data.squares import SquareFormat, SquareRecipe, decoding_pool, read_squares
from diffcli.data.staging import overwrite_refusal
from diffcli.errors import InterruptedRunError, StorageError, UsageError
from diffcli.images.decode import printable
from diffcli.records.datasets import (
    DATASET_SCHEMA,
    UNHEARD,
    DatasetRecord,
    PreparedSplit,
    PrepareListener,
    PrepareProgress,
    PrepareResult,
)

_LARGEST_SIZE = 4096
# What a record tells of the program, and not of the images.
_OF_THE_WRITER = frozenset({"schema", "content_hash", "diffcli_version"})


@dataclass(frozen=True, kw_only=True)
class OutputChoices:
    """What every form of `prepare` lets its user choose; home: of the data; force: replace what is there."""

    home: Path
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class OutputForm:
    """What to make of the images of a source.

    name: of the dataset; size: height and width, pixels; channels: 1 gray, 3 RGB; recipe: "" when the images
    have that size; keep_same: a split that is there and came from the same source in the same form is
    verified and kept, instead of refused.
    """

    choices: OutputChoices
    name: str
    size: int
    channels: int
    recipe: SquareRecipe
    keep_same: bool = False

    @property
    def square(self) -> SquareFormat:
        """What every image is brought to."""
        return SquareFormat(resolution=self.size, recipe=self.recipe, channels=self.channels)

    def target(self, source: ImageSource) -> Path:
        """Where a split of a source goes."""
        return self.choices.home / self.name / source.facts.split


def check_form(form: OutputForm) -> None:
    """UsageError for a size, channels or a name that cannot be; call it before a source is opened."""
    if not 1 <= form.size <= _LARGEST_SIZE:
        raise UsageError(
            f"--size is {form.size}", remedy=f"give a number of pixels from 1 to {_LARGEST_SIZE}"
        )
    if form.channels not in (1, 3):
        raise UsageError(f"--channels is {form.channels}", remedy="give 1 for gray or 3 for RGB")
    if form.name != printable(form.name) or "/" in form.name or form.name.startswith("."):
        raise UsageError(
            f"{printable(form.name)!r} cannot name a dataset",
            where="--name",
            remedy="use a name without slashes and control characters that does not begin with a dot",
        )


def require_free(target: Path, form: OutputForm) -> None:
    """UsageError when a dataset is there that is neither to be replaced nor to be kept."""
    if target.exists() and not form.choices.force and not form.keep_same:
        raise overwrite_refusal(target)


def prepare(
    sources: Sequence[ImageSource],
    form: OutputForm,
    listener: PrepareListener = UNHEARD,
) -> PrepareResult:
    """Decode, resize and write every image of every split on all CPU cores.

    Errors: CorruptError with all bad images or for a damaged dataset that is there, UsageError for the form
    or a dataset in the way, StorageError, LockedError, InterruptedRunError. After any of them nothing
    half-made is left of that split. Main thread only.
    """
    check_form(form)
    for source in sources:
        require_free(form.target(source), form)
    splits = []
    total = sum(source.count for source in sources)
    with StopRequests(on_request=listener.on_stop) as stop:
        done_before = 0
        for source in sources:
            told = _of_all(_stoppable(listener.progress, stop), done_before, total)
            splits.append(_prepare_split(source, form, told))
            done_before += source.count
    return PrepareResult(name=form.name, splits=tuple(splits))


def nearest_existing(directory: Path) -> Path:
    """The directory, or the nearest one above it that is there already."""
    return next(path for path in (directory, *directory.absolute().parents) if path.is_dir())


def _prepare_split(source: ImageSource, form: OutputForm, progress: PrepareProgress) -> PreparedSplit:
    started_at = time.perf_counter()
    target = form.target(source)
    facts = _record(source, form)
    there = is_prepared(target) and not form.choices.force
    if there:
        record = _kept(target, facts)
        progress(source.count, source.count)
    else:
        _check_space(form.choices.home, facts)
        record = write_packed(
            target, facts, _blocks(source, form.square, progress), source.labels, replace=form.choices.force
        )
    return _prepared_split(target, record, seconds=time.perf_counter() - started_at, already_there=there)


def _kept(target: Path, facts: DatasetRecord) -> DatasetRecord:
    """The record of what is there; an error when it is damaged, or not what would be prepared."""
    dataset = PreparedDataset(target)
    there, wanted = dataclasses.asdict(dataset.record), dataclasses.asdict(facts)
    different = [name for name in wanted if name not in _OF_THE_WRITER and there[name] != wanted[name]]
    if different:
        raise UsageError(
            f"{target} holds other images than would be prepared",
            where=f"different in its dataset.json: {', '.join(different)}",
            remedy="--force replaces them",
        )
    dataset.require_intact()
    return dataset.record


def _blocks(
    source: ImageSource, square: SquareFormat, progress: PrepareProgress
) -> Iterator[NDArray[np.uint8]]:
    with decoding_pool() as pool:
        for pixels in read_squares(source, range(source.count), square, pool, progress):
            yield pixels[np.newaxis]


def _of_all(progress: PrepareProgress, before: int, total: int) -> PrepareProgress:
    """The progress of one split told as that of all."""
    return lambda done, _of_split: progress(before + done, total)


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


def _record(source: ImageSource, form: OutputForm) -> DatasetRecord:
    facts, origin = source.facts, source.origin()
    return DatasetRecord(
        schema=DATASET_SCHEMA,
        name=form.name,
        variant=facts.variant,
        split=facts.split,
        split_rule=facts.split_rule,
        count=source.count,
        height=form.size,
        width=form.size,
        channels=form.channels,
        class_names=facts.class_names,
        label_source=facts.label_source,
        resize_recipe=form.recipe,
        source_url=origin.url,
        source_bytes=origin.size_bytes,
        source_sha256=origin.sha256,
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


def _check_space(home: Path, facts: DatasetRecord) -> None:
    """StorageError before hours of decoding, when the result cannot fit."""
    needed_bytes = facts.count * facts.height * facts.width * facts.channels
    existing = nearest_existing(home)
    free_bytes = shutil.disk_usage(existing).free
    if needed_bytes > free_bytes:
        raise StorageError(
            f"the dataset needs {needed_bytes / 1e9:.1f} GB, but there are {free_bytes / 1e9:.1f} GB free in "
            f"{printable(existing)}",
            remedy="free some space on that disk, or choose another data home",
        )
