"""One run with all that belongs to it, as `runs show` draws it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from diffcli.records.evaluations import LikelihoodEvaluation
from diffcli.records.image_evaluations import ImageEvaluation
from diffcli.records.runs import RunRow

PartKind = Literal["checkpoint", "EMA snapshot"]


@dataclass(frozen=True, kw_only=True)
class ConfigValue:
    """One setting by its dotted path; `value` is plain JSON."""

    key: str
    value: object


@dataclass(frozen=True, kw_only=True)
class DatasetSummary:
    """What the run was trained on."""

    path: str
    count: int
    classes: int
    content_hash: str
    weak_hash: bool


@dataclass(frozen=True, kw_only=True)
class ImportSummary:
    """The files that an imported run was made of, and how its preset was known."""

    files: tuple[str, ...]
    how: str
    notices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AttemptSummary:
    """One start or resume."""

    number: int
    started_at: datetime
    first_step: int
    changes: tuple[str, ...]
    world_size: int
    device: str
    precision: str
    process: str


@dataclass(frozen=True, kw_only=True)
class MetricValue:
    """The last value of one metric."""

    name: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Series:
    """A metric over the steps as a few means, for a small picture; `steps` are the last of each mean."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CheckpointSummary:
    """A checkpoint by its step; complete: its manifest is there (loading it verifies the content)."""

    step: int
    directory: Path
    size_bytes: int
    complete: bool
    pinned: bool


@dataclass(frozen=True, kw_only=True)
class DamagedCheckpoint:
    """A checkpoint or an EMA snapshot that `runs repair` renamed, so that it does not count."""

    directory: Path
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class SnapshotSummary:
    """A snapshot of the power-function averages by its step."""

    step: int
    directory: Path
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class AbandonedPart:
    """A checkpoint or an EMA snapshot that the rollback at the start of an attempt set aside."""

    attempt: int
    kind: PartKind
    step: int
    directory: Path
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class SampleSummary:
    """A set of samples; the archive is None while it is being written."""

    name: str
    archive: Path | None
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class EvaluationSummary:
    """The record of an evaluation.

    kind: None where the file does not say; evaluation: None of a kind that is not known here, and of a file
    that cannot be read, for which `problem` says why.
    """

    name: str
    path: Path
    kind: str | None
    evaluation: LikelihoodEvaluation | ImageEvaluation | None
    problem: str | None


@dataclass(frozen=True, kw_only=True)
class RunDetails:
    """All there is to say of one run; `metrics` are those of `metrics_step`, the last one logged.

    imported: None for a run that was trained from its beginning here; dataset: None when it was imported, and
    what it was trained on is not known.
    """

    row: RunRow
    directory: Path
    command_line: tuple[str, ...]
    parent: str | None
    git_commit: str | None
    tags: tuple[str, ...]
    note: str
    imported: ImportSummary | None
    dataset: DatasetSummary | None
    config: tuple[ConfigValue, ...]
    attempts: tuple[AttemptSummary, ...]
    metrics_step: int | None
    metrics: tuple[MetricValue, ...]
    unreadable_metric_lines: int
    loss_series: Series
    checkpoints: tuple[CheckpointSummary, ...]
    damaged: tuple[DamagedCheckpoint, ...]
    ema_snapshots: tuple[SnapshotSummary, ...]
    abandoned: tuple[AbandonedPart, ...]
    samples: tuple[SampleSummary, ...]
    evaluations: tuple[EvaluationSummary, ...]
