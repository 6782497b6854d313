"""Bring the splits of any source into the data home as a prepared dataset: what all forms of `prepare` do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffcli import __version__
from diffcli.commands.interruption import StopRequests
from diffcli.data.packed_writer import packed_writer
from diffcli.data.prepared import PreparedDataset, is_prepared
from diffcli.data.record_file import write_record
from diffcli.data.sources.source import ImageSource
from diffcli.data.squares import SquareFormat, SquareRecipe, decoding_pool, made_ahead
from diffcli.data.staging import Staging, forget_finished, overwrite_refusal, staged_directory
from diffcli.errors import InterruptedRunError, StorageError, UsageError
from diffcli.images.decode import DECODER, printable
from diffcli.records.datasets import (
    DATASET_SCHEMA,
    UNHEARD,
    DatasetRecord,
    PreparedSplit,
    PrepareListener,
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
    forget_finished(target)
    if target.exists() and not form.choices.force and not form.keep_same:
        raise overwrite_refusal(target)


def prepare(
    sources: Sequence[ImageSource],
    form: OutputForm,
    listener: PrepareListener = UNHEARD,
) -> PrepareResult:
    """Decode, resize and write every image of every split on all CPU cores.

    A preparation that was killed or stopped goes on where it was, and ends with the same bytes. Errors:
    CorruptError with all bad images or for a damaged dataset that is there, UsageError for the form or a
    dataset in the way, StorageError, LockedError, InterruptedRunError. After all but the last nothing
    half-made is left of that split. Main thread only.
    """
    check_form(form)
    for source in sources:
        require_free(form.target(source), form)
    splits: list[PreparedSplit] = []
    total = sum(source.count for source in sources)
    with StopRequests(on_request=listener.on_stop) as stop:
        for source in sources:
            before = sum(split.count for split in splits)
            course = _Course(listener=listener, stop=stop, before=before, total=total)
            splits.append(_prepare_split(source, form, course))
    return PrepareResult(name=form.name, splits=tuple(splits))


def nearest_existing(directory: Path) -> Path:
    """The directory, or the nearest one above it that is there already."""
    return next(path for path in (directory, *directory.absolute().parents) if path.is_dir())


@dataclass(frozen=True, kw_only=True)
class _Course:
    """How far all splits together are, and whether to stop; `before`: images of the splits before."""

    listener: PrepareListener
    stop: StopRequests
    before: int
    total: int

    def told(self, done: int) -> None:
        """Tell that so many of this split are done; InterruptedRunError once a signal asks to stop."""
        self.listener.progress(self.before + done, self.total)
        if self.stop.signal_number:
            raise InterruptedRunError(
                f"stopped after {self.before + done} of {self.total} images",
                signal_number=self.stop.signal_number,
                remedy="the same command goes on from there",
            )


def _prepare_split(source: ImageSource, form: OutputForm, course: _Course) -> PreparedSplit:
    started_at = time.perf_counter()
    target = form.target(source)
    there = is_prepared(target) and not form.choices.force
    if there:
        record = _kept(target, _with_origin(_facts(source, form), source))
        course.told(source.count)
    else:
        with staged_directory(
            target, request=_fingerprint(source, form), replace=form.choices.force
        ) as staging:
            record = _write(source, form, staging, course)
    return _prepared_split(target, record, seconds=time.perf_counter() - started_at, already_there=there)


def _write(source: ImageSource, form: OutputForm, staging: Staging, course: _Course) -> DatasetRecord:
    """Fill the staging directory from where it is filled to."""
    facts = _facts(source, form)
    _check_space(form.choices.home, facts, staging.done)
    _tell_what_is_there(staging, course)
    with (
        packed_writer(staging, facts, form.square, lambda: course.told(staging.done)) as writer,
        decoding_pool() as pool,
    ):
        first = writer.done
        try:
            for made in made_ahead(
                source,
                range(first, source.count),
                lambda index: writer.make(source, index),
                pool,
                lambda done, _left: course.told(first + done),
            ):
                writer.add(made)
        except InterruptedRunError:
            writer.keep()
            raise
        written = writer.finish(source.labels)
    record = dataclasses.replace(_with_origin(facts, source), content_hash=written.content_hash)
    write_record(staging.directory, record, source.labels)
    return record


def _tell_what_is_there(staging: Staging, course: _Course) -> None:
    if staging.other_request:
        course.listener.notice(
            "starting anew: what an interrupted preparation left is of another source, or for other settings"
        )
    if staging.done:
        course.listener.notice(
            f"going on after {course.before + staging.done} of {course.total} images; reading them again"
        )


def _fingerprint(source: ImageSource, form: OutputForm) -> str:
    """A digest of all that decides what is written, so that nothing is mixed of two preparations."""
    written_by = {"diffcli": __version__, "decoder": DECODER}
    facts = dataclasses.asdict(_facts(source, form)) | {"source": source.identity()} | written_by
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


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


def _facts(source: ImageSource, form: OutputForm) -> DatasetRecord:
    """The record without what is known only at the end: hash and origin."""
    facts = source.facts
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
        source_url="",
        source_bytes=0,
        source_sha256="",
        content_hash="",
        diffcli_version=__version__,
    )


def _with_origin(facts: DatasetRecord, source: ImageSource) -> DatasetRecord:
    origin = source.origin()
    return dataclasses.replace(
        facts, source_url=origin.url, source_bytes=origin.size_bytes, source_sha256=origin.sha256
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


def _check_space(home: Path, facts: DatasetRecord, done: int) -> None:
    """StorageError before hours of decoding, when what is left to write cannot fit."""
    needed_bytes = (facts.count - done) * facts.height * facts.width * facts.channels
    existing = nearest_existing(home)
    free_bytes = shutil.disk_usage(existing).free
    if needed_bytes > free_bytes:
        raise StorageError(
            f"the dataset needs {needed_bytes / 1e9:.1f} GB, but there are {free_bytes / 1e9:.1f} GB free in "
            f"{printable(existing)}",
            remedy="free some space on that disk, or choose another data home",
        )
