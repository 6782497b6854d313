"""Bring the splits of any source into the data home as a prepared dataset: what all forms of `prepare` do."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from diffcli.commands.course import Course
from diffcli.commands.dataset_listing import size_bytes
from diffcli.commands.interruption import StopRequests
from diffcli.commands.output_form import OutputForm, check_form, facts_of, fingerprint, with_origin
from diffcli.data.dataset import open_prepared
from diffcli.data.folder_writer import FolderWriter, holds_exactly, require_class_names
from diffcli.data.packed_writer import packed_writer
from diffcli.data.prepared import is_prepared
from diffcli.data.record_file import write_record
from diffcli.data.shard_files import shard_layout
from diffcli.data.shard_writer import ShardJob, shard_writer
from diffcli.data.sources.source import ImageSource
from diffcli.data.squares import decoding_pool, made_ahead
from diffcli.data.staging import Staging, forget_finished, overwrite_refusal, staged_directory
from diffcli.data.writer import Check, Writer
from diffcli.errors import InterruptedRunError, StorageError, UsageError
from diffcli.images.decode import printable
from diffcli.images.encode import EncodingChoice
from diffcli.records.datasets import (
    UNHEARD,
    DatasetRecord,
    PreparedSplit,
    PrepareListener,
    PrepareResult,
)

# Bytes for each byte of pixels, roughly, of photographs at quality 95.
_SHARE_WHEN_ENCODED = {"jpeg": 0.25, "webp": 0.55, "png": 0.6}
# What a record tells of the program, and not of the images.
_OF_THE_WRITER = frozenset({"schema", "content_hash", "diffcli_version", "shard_sha256"})


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
        if form.choices.layout == "folder":
            require_class_names(source)
    splits: list[PreparedSplit] = []
    total = sum(source.count for source in sources)
    with StopRequests(on_request=listener.on_stop) as stop:
        for source in sources:
            before = sum(split.count for split in splits)
            course = Course(
                listener=listener,
                stop=stop,
                before=before,
                total=total,
                remedy="the same command goes on from there",
            )
            splits.append(_prepare_split(source, form, course))
    return PrepareResult(name=form.name, splits=tuple(splits))


def nearest_existing(directory: Path) -> Path:
    """The directory, or the nearest one above it that is there already."""
    return next(path for path in (directory, *directory.absolute().parents) if path.is_dir())


def _prepare_split(source: ImageSource, form: OutputForm, course: Course) -> PreparedSplit:
    started_at = time.perf_counter()
    target = form.target(source)
    there = _is_there(target, source, form)
    if there:
        record = _kept(target, source, form)
        course.told(source.count)
    else:
        with staged_directory(
            target, request=fingerprint(source, form), replace=form.choices.force
        ) as staging:
            record = _write(source, form, staging, course)
    return _prepared_split(target, record, seconds=time.perf_counter() - started_at, already_there=there)


def _write(source: ImageSource, form: OutputForm, staging: Staging, course: Course) -> DatasetRecord:
    """Fill the staging directory from where it is filled to."""
    facts = facts_of(source, form)
    _check_space(form.choices.home, facts, staging.done)
    _tell_what_is_there(staging, course)
    with (
        _writer(staging, facts, form, source, lambda again: course.told_again(again, staging.done)) as writer,
        decoding_pool() as pool,
    ):
        first = writer.done
        course.listener.begin("preparing")
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
    if form.choices.layout == "folder":
        return facts
    record = dataclasses.replace(
        with_origin(facts, source),
        content_hash=written.content_hash,
        shard_sha256=written.shard_sha256,
    )
    write_record(staging.directory, record, source.labels)
    return record


def _writer(
    staging: Staging, facts: DatasetRecord, form: OutputForm, source: ImageSource, check: Check
) -> AbstractContextManager[Writer[Any]]:
    if form.choices.layout == "folder":
        return contextlib.nullcontext(FolderWriter(staging, source, form.square))
    if form.format == "packed":
        return packed_writer(staging, facts, form.square, check)
    job = ShardJob(
        facts=facts,
        layout=shard_layout(facts, source.labels),
        square=form.square,
        encoding=EncodingChoice(name=form.choices.encoding, quality=form.choices.quality),
    )
    return shard_writer(staging, job, check)


def _tell_what_is_there(staging: Staging, course: Course) -> None:
    if staging.other_request:
        course.listener.notice(
            "starting anew: what an interrupted preparation left is of another source, or for other settings"
        )
    if staging.done:
        course.listener.notice(
            f"going on after {course.before + staging.done} of {course.total} images; reading them again"
        )
        course.listener.begin("reading again")


def _is_there(target: Path, source: ImageSource, form: OutputForm) -> bool:
    """Whether the target is to be kept, if it is what would be written."""
    if form.choices.force or not form.keep_same:
        return False
    if form.choices.layout == "folder":
        return target.is_dir() and holds_exactly(target, source)
    return is_prepared(target)


def _kept(target: Path, source: ImageSource, form: OutputForm) -> DatasetRecord:
    """The record of what is there; an error when it is damaged, or not what would be prepared."""
    if form.choices.layout == "folder":
        return facts_of(source, form)
    facts = with_origin(facts_of(source, form), source)
    dataset = open_prepared(target)
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
        size_bytes=size_bytes(target),
        seconds=seconds,
        already_there=already_there,
    )


def _check_space(home: Path, facts: DatasetRecord, done: int) -> None:
    """StorageError before hours of decoding, when what is left to write cannot fit."""
    about = "about " if facts.encoding else ""
    pixel_bytes = (facts.count - done) * facts.height * facts.width * facts.channels
    needed_bytes = int(pixel_bytes * _SHARE_WHEN_ENCODED.get(facts.encoding, 1.0))
    existing = nearest_existing(home)
    free_bytes = shutil.disk_usage(existing).free
    if needed_bytes > free_bytes:
        raise StorageError(
            f"the dataset needs {about}{needed_bytes / 1e9:.1f} GB, but there are {free_bytes / 1e9:.1f} GB "
            f"free in {printable(existing)}",
            remedy="free some space on that disk, or choose another data home",
        )
