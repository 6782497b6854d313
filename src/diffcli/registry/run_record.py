"""What a run is, each start of it, and what people say of it."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import datetime

from diffcli import durable
from diffcli.records.image_evaluations import EvaluatedSet, ExtractorFacts
from diffcli.registry.json_records import ConfigJSON, JSONValue, read_record, write_record
from diffcli.registry.paths import RunPaths

RUN_SCHEMA = 1
ATTEMPT_SCHEMA = 1
ANNOTATIONS_SCHEMA = 2
_ATTEMPT_FILE = re.compile(r"([0-9]{3,})\.json")


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


# of an imported run: its files do not tell what it was trained on
UNKNOWN_DATASET = DatasetFacts(path="", content_hash="", weak_hash=False, count=0, class_names=())


@dataclass(frozen=True, kw_only=True)
class ParentCheckpoint:
    """The run, and the step of it, that a run was started from."""

    run_id: str
    step: int


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """run.json: written once, when the run is made. `config` is what `config.encode` made of a RunConfig.

    validation: what it measures itself on; None when it does not.
    """

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
    validation: DatasetFacts | None = None


@dataclass(frozen=True, kw_only=True)
class RunHeading:
    """As much of run.json as a list of runs needs."""

    id: str
    name: str
    created_at: datetime
    preset: str


@dataclass(frozen=True, kw_only=True)
class SettingChange:
    """A setting that an attempt has otherwise than the run's record; `key` is its dotted path."""

    key: str
    before: JSONValue
    after: JSONValue


@dataclass(frozen=True, kw_only=True)
class MeasuredSamples:
    """How the samples of `training.eval_samples` are drawn, and what they are compared with.

    count: of them; steps: of DDIM; weights: such as ema-0.9999, or model; reference: the training data.
    """

    count: int
    steps: int
    seed: int
    weights: str
    extractor: ExtractorFacts
    reference: EvaluatedSet


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """attempts/NNN.json: one start or resume, counted from 1, that went on after `first_step` steps.

    microbatch: images per forward pass of one process, 0 if not known; rolled_back: it went back to an
    earlier checkpoint, and on with the other seed among its changes; dataset, validation: what an imported
    run is trained on, and what a run measures itself on, from here on; None where the run's record or an
    earlier attempt says it; samples: what it measures samples by, None where it draws none.
    """

    number: int
    started_at: datetime
    first_step: int
    changes: tuple[SettingChange, ...]
    world_size: int
    device: str
    threads: int
    precision: str
    versions: Versions
    host: str
    pid: int
    microbatch: int = 0
    rolled_back: bool = False
    dataset: DatasetFacts | None = None
    validation: DatasetFacts | None = None
    samples: MeasuredSamples | None = None


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """annotations.json: what people say of a run, at any time.

    pinned: nothing removes the run. pinned_steps: nothing removes its checkpoints after so many steps.
    """

    name: str
    tags: tuple[str, ...] = ()
    note: str = ""
    pinned: bool = False
    pinned_steps: tuple[int, ...] = ()


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
    return stored_annotations(run) or Annotations(name=heading.name)


def stored_annotations(run: RunPaths) -> Annotations | None:
    """annotations.json; None when there is no such file, CorruptError when it is broken."""
    if not run.annotations.exists():
        return None
    return read_record(Annotations, run.annotations, schema=ANNOTATIONS_SCHEMA)


def pinned_steps(run: RunPaths) -> frozenset[int]:
    """The steps of the checkpoints that nothing may remove.

    CorruptError or StorageError when annotations.json cannot be read: then any of them may be pinned.
    """
    annotations = stored_annotations(run)
    return frozenset(annotations.pinned_steps if annotations else ())


def write_attempt(run: RunPaths, attempt: Attempt) -> None:
    """Write attempts/NNN.json; StorageError when that fails."""
    with durable.storage_errors(run.attempts):
        run.attempts.mkdir(exist_ok=True)
    write_record(run.attempt(attempt.number), attempt, schema=ATTEMPT_SCHEMA)


def read_attempts(run: RunPaths) -> tuple[Attempt, ...]:
    """All attempts, first to last."""
    return tuple(
        read_record(Attempt, run.attempt(number), schema=ATTEMPT_SCHEMA) for number in attempt_numbers(run)
    )


def known_dataset(run: RunPaths, record: RunRecord) -> DatasetFacts:
    """What a run is trained on: by its record, or if it was imported by its first attempt; or unknown."""
    if record.dataset != UNKNOWN_DATASET:
        return record.dataset
    return next(
        (attempt.dataset for attempt in read_attempts(run) if attempt.dataset is not None), UNKNOWN_DATASET
    )


def known_validation(run: RunPaths, record: RunRecord) -> DatasetFacts | None:
    """What a run measures itself on: by its record, or by the attempt that began it; None if it never did."""
    if record.validation is not None:
        return record.validation
    return next(
        (attempt.validation for attempt in read_attempts(run) if attempt.validation is not None), None
    )


def attempt_numbers(run: RunPaths) -> tuple[int, ...]:
    """The numbers of all attempts, first to last; the next one is one more than the last."""
    with contextlib.suppress(FileNotFoundError):
        names = (_ATTEMPT_FILE.fullmatch(path.name) for path in run.attempts.iterdir())
        return tuple(sorted(int(name.group(1)) for name in names if name))
    return ()
