"""What a run is, and what people say of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from diffcli.registry.json_records import ConfigJSON, read_record, write_record
from diffcli.registry.paths import RunPaths

RUN_SCHEMA = 1
ANNOTATIONS_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Versions:
    """The programs that decide what a run computes; empty: not installed."""

    diffcli: str
    python: str
    torch: str
    accelerate: str
    numpy: str
    safetensors: str
    platform: str


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What a run was trained on; a weak hash covers names and sizes, not contents."""

    path: str
    content_hash: str
    weak_hash: bool
    count: int
    class_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ParentCheckpoint:
    """The run, and the step of it, that a run was started from."""

    run_id: str
    step: int


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """run.json: written once, when the run is made. `config` is what `config.encode` made of a RunConfig."""

    id: str
    name: str
    created_at: datetime
    preset: str
    command_line: tuple[str, ...]
    config: ConfigJSON
    versions: Versions
    git_commit: str | None
    dataset: DatasetFacts
    parent: ParentCheckpoint | None


@dataclass(frozen=True, kw_only=True)
class RunHeading:
    """As much of run.json as a list of runs needs."""

    id: str
    name: str
    created_at: datetime
    preset: str


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """annotations.json: what people say of a run, at any time."""

    name: str
    tags: tuple[str, ...] = ()
    note: str = ""
    pinned: bool = False


def write_run_record(run: RunPaths, record: RunRecord) -> None:
    """Write run.json; StorageError when that fails."""
    write_record(run.record, record, schema=RUN_SCHEMA)


def read_run_record(run: RunPaths) -> RunRecord:
    """The whole of run.json; CorruptError names the file and the field that is wrong."""
    return read_record(RunRecord, run.record, schema=RUN_SCHEMA)


def read_heading(run: RunPaths) -> RunHeading:
    """What a list needs of run.json; CorruptError as above."""
    return read_record(RunHeading, run.record, schema=RUN_SCHEMA, partly=True)


def write_annotations(run: RunPaths, annotations: Annotations) -> None:
    """Replace annotations.json; StorageError when that fails."""
    write_record(run.annotations, annotations, schema=ANNOTATIONS_SCHEMA)


def read_annotations(run: RunPaths, heading: RunHeading | RunRecord) -> Annotations:
    """annotations.json, or none but the first name when there is no such file."""
    if not run.annotations.exists():
        return Annotations(name=heading.name)
    return read_record(Annotations, run.annotations, schema=ANNOTATIONS_SCHEMA)
