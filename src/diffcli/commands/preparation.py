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
from diffcli.commands.kept_splits import kept_split, prepared_split, require_free
from diffcli.commands.output_form import OutputForm, check_form, facts_of, fingerprint, with_origin
from diffcli.data.folder_writer import FolderWriter, holds_exactly, require_class_names
from diffcli.data.packed_writer import packed_writer
from diffcli.data.record_file import write_record
from diffcli.data.shard_files import shard_layout
from diffcli.data.shard_writer import ShardJob, shard_writer
from diffcli.data.sources.published import compared_with_published
from diffcli.data.sources.source import ImageSource
from diffcli.data.squares import decoding_pool, made_ahead
from diffcli.data.staging import Staging, staged_directory
from diffcli.data.writer import Check, Writer
from diffcli.errors import InterruptedRunError, StorageError
from diffcli.images.decode import printable
from diffcli.records.datasets import DatasetRecord, PreparedSplit, PrepareResult

# Bytes for each byte of pixels, roughly, of photographs at quality 95.
_SHARE_WHEN_ENCODED = {"jpeg": 0.25, "webp": 0.55, "png": 0.6}


def prepare(
    sources: Sequence[ImageSource],
    form: OutputForm,
    course: Course,
    kept: Sequence[PreparedSplit] = (),
) -> PrepareResult:
    """Decode, resize and write every image of every split on all CPU cores.

    kept: splits that were found before their sources were opened. A preparation that was killed or stopped
    goes on where it was, and ends with the same bytes. Errors: CorruptError with all bad images or for a
    damaged dataset that is there, UsageError for the form or a dataset in the way, StorageError, LockedError,
    InterruptedRunError. After all but the last nothing half-made is left of that split.
    """
    check_form(form)
    for source in sources:
        require_free(_target(source, form), form)
        if form.choices.layout == "folder":
            require_class_names(source)
    splits = list(kept)
    total = sum(split.count for split in kept) + sum(source.count for source in sources)
    for source in sources:
        before = sum(split.count for split in splits)
        splits.append(_prepare_split(source, form, course.of_split(before, total)))
    # the one to train on comes first, also when it was there before
    splits.sort(key=lambda split: split.split != "train")
    return PrepareResult(name=form.name, recipe=form.recipe, splits=tuple(splits))


def nearest_existing(directory: Path) -> Path:
    """The directory, or the nearest one above it that is there already."""
    return next(path for path in (directory, *directory.absolute().parents) if path.is_dir())


def _prepare_split(source: ImageSource, form: OutputForm, course: Course) -> PreparedSplit:
    started_at = time.perf_counter()
    kept = kept_split(source, form, course)
    if kept is not None:
        course.told(source.count)
        return kept
    target = _target(source, form)
    there = _is_kept_folder(target, source, form)
    if there:
        record = facts_of(source, form)
        course.told(source.count)
    else:
        with staged_directory(
            target, request=fingerprint(source, form), replace=form.choices.force
        ) as staging:
            record = _write(source, form, staging, course)
    return prepared_split(target, record, seconds=time.perf_counter() - started_at, already_there=there)


def _target(source: ImageSource, form: OutputForm) -> Path:
    return form.target(source.facts.split, source.facts.reference_names)


def _is_kept_folder(target: Path, source: ImageSource, form: OutputForm) -> bool:
    """Whether the target is a directory of PNG files to be kept, which only their names tell."""
    wanted = form.keep_same and not form.choices.force and form.choices.layout == "folder"
    return wanted and target.is_dir() and holds_exactly(target, source)


def _write(source: ImageSource, form: OutputForm, staging: Staging, course: Course) -> DatasetRecord:
    """Fill the staging directory from where it is filled to."""
    facts = facts_of(source, form)
    _check_space(form, facts, staging.done)
    _tell_what_is_there(staging, course)
    with (
        _writer(staging, facts, form, source, lambda again: course.told_again(again, staging.done)) as writer,
        decoding_pool() as pool,
    ):
        first = writer.done
        course.listener.begin("preparing", "images")
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
    with course.phase("hashing the source", "bytes") as told:
        origin = source.origin(told)
    record = dataclasses.replace(
        with_origin(facts, origin),
        content_hash=written.content_hash,
        shard_sha256=written.shard_sha256,
    )
    write_record(staging.directory, record, source.labels)
    compared = compared_with_published(source.location, origin.sha256, source.facts.published_digests)
    if compared:
        course.listener.notice(f"{record.split}: {compared}")
    return record


def _writer(
    staging: Staging, facts: DatasetRecord, form: OutputForm, source: ImageSource, check: Check
) -> AbstractContextManager[Writer[Any]]:
    if form.choices.layout == "folder":
        return contextlib.nullcontext(FolderWriter(staging, source, form.square))
    if form.encoding is None:
        return packed_writer(staging, facts, form.square, check)
    job = ShardJob(
        facts=facts,
        layout=shard_layout(facts, source.labels),
        square=form.square,
        encoding=form.encoding,
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
        course.listener.begin("reading again", "images")


def _check_space(form: OutputForm, facts: DatasetRecord, done: int) -> None:
    """StorageError before hours of decoding, when what is left to write cannot fit."""
    about, share = ("about ", _SHARE_WHEN_ENCODED[form.encoding.name]) if form.encoding else ("", 1.0)
    pixel_bytes = (facts.count - done) * facts.height * facts.width * facts.channels
    needed_bytes = int(pixel_bytes * share)
    existing = nearest_existing(form.choices.home)
    free_bytes = shutil.disk_usage(existing).free
    if needed_bytes > free_bytes:
        raise StorageError(
            f"the dataset needs {about}{needed_bytes / 1e9:.1f} GB, but there are {free_bytes / 1e9:.1f} GB "
            f"free in {printable(existing)}",
            remedy="free some space on that disk, or choose another data home",
        )
