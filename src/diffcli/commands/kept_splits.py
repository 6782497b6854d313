"""Splits that are there already: whether they are what would be prepared, and intact."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from diffcli.commands.course import Course
from diffcli.commands.dataset_listing import size_bytes
from diffcli.commands.output_form import OutputForm, facts_of, in_form
from diffcli.data.dataset import open_prepared
from diffcli.data.prepared import is_prepared
from diffcli.data.record_file import read_record
from diffcli.data.sources.source import Announced, Origin
from diffcli.data.staging import forget_finished, overwrite_refusal
from diffcli.errors import UsageError
from diffcli.images.decode import printable
from diffcli.records.datasets import DatasetRecord, PreparedSplit

# What a record tells of the program, and not of the images.
_OF_THE_WRITER = frozenset({"schema", "content_hash", "diffcli_version", "shard_sha256"})
# What it tells of the source as a place.
_OF_THE_ORIGIN = frozenset({"source_url", "source_bytes", "source_sha256"})
# What --allow-partial leaves open: it follows from the files.
_OF_THE_AMOUNT = frozenset({"count", "split_rule"})


def require_free(target: Path, form: OutputForm) -> None:
    """UsageError when something is there that is neither to be replaced nor can be kept.

    It tells so from the request alone; call it before a source is opened.
    """
    forget_finished(target)
    if not target.exists() or form.choices.force:
        return
    if not form.keep_same:
        raise overwrite_refusal(target)
    if form.choices.layout == "dataset" and is_prepared(target):
        record = read_record(target)
        _refuse_other_images(target, _different(record, in_form(record, form)))


def is_kept(target: Path, form: OutputForm) -> bool:
    """Whether there is a dataset that is to be kept, if it is what would be written."""
    wanted = form.keep_same and not form.choices.force and form.choices.layout == "dataset"
    return wanted and is_prepared(target)


def kept_split(
    announced: Announced, form: OutputForm, course: Course, *, partial: bool = False
) -> PreparedSplit | None:
    """The split that is there, when it is what would be prepared; None when nothing is there to keep.

    announced: an open source, or what is known of a published one before it is fetched or unpacked; partial:
    another number of images than announced is accepted, as --allow-partial does. Errors: UsageError when what
    is there is of other images or files, CorruptError when it is damaged, InterruptedRunError.
    """
    started_at = time.perf_counter()
    target = form.target(announced.facts.split, announced.facts.reference_names)
    if not is_kept(target, form):
        return None
    dataset = open_prepared(target)
    different = _different(dataset.record, facts_of(announced, form)) - _OF_THE_ORIGIN
    _refuse_other_images(target, different - (_OF_THE_AMOUNT if partial else frozenset()))
    with course.phase("hashing the source", "bytes") as told:
        origin = announced.origin(told)
    if not _came_from(dataset.record, origin):
        raise UsageError(
            f"{target} was prepared from other files, or from another place",
            where=f"it came {_told(_origin_of(dataset.record))}\nnow they come {_told(origin)}",
            remedy="use it as it is, or --force replaces it",
        )
    with course.phase("verifying") as told:
        dataset.require_intact(told)
    seconds = time.perf_counter() - started_at
    return prepared_split(target, dataset.record, seconds=seconds, already_there=True)


def prepared_split(
    target: Path, record: DatasetRecord, *, seconds: float, already_there: bool
) -> PreparedSplit:
    """What is told of a split on disk."""
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


def _different(there: DatasetRecord, wanted: DatasetRecord) -> frozenset[str]:
    """The fields in which they differ, but for those of the program."""
    fields = {field.name for field in dataclasses.fields(DatasetRecord)} - _OF_THE_WRITER
    return frozenset(name for name in fields if getattr(there, name) != getattr(wanted, name))


def _refuse_other_images(target: Path, different: frozenset[str]) -> None:
    if different:
        raise UsageError(
            f"{target} holds other images than would be prepared",
            where=f"different in its dataset.json: {', '.join(sorted(different))}",
            remedy="--force replaces them",
        )


def _came_from(there: DatasetRecord, origin: Origin) -> bool:
    """Whether it is the same content, wherever it lies; by place and size when that cannot be known."""
    if there.source_bytes != origin.size_bytes:
        return False
    if there.source_sha256 and origin.sha256:
        return there.source_sha256 == origin.sha256
    return there.source_url == origin.url


def _origin_of(record: DatasetRecord) -> Origin:
    return Origin(url=record.source_url, size_bytes=record.source_bytes, sha256=record.source_sha256)


def _told(origin: Origin) -> str:
    digest = f", SHA-256 {origin.sha256[:12]}..." if origin.sha256 else ""
    return f"from {printable(origin.url)}, {origin.size_bytes:,} bytes{digest}"
