"""Numbers of evaluations beside one another: what `runs ls` shows of them, and which are not alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from diffcli.records.runs import RunRow


@dataclass(frozen=True, kw_only=True)
class ComparedFact:
    """One thing that like numbers share; value: what is compared, text: the same for people."""

    name: str
    value: str
    text: str


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """A number of an evaluation, and what has to be the same for another to be alike.

    value: never NaN; deviation: its spread or its standard error, None where there is none; checkpoint,
    weights: None of images that no record says more of; comparison_key: a digest of the metric and the
    values of `facts`; every result of a metric has the same facts in the same order.
    """

    name: str
    value: float
    deviation: float | None
    evaluation: str
    path: Path
    checkpoint: int | None
    weights: str | None
    started_at: datetime
    facts: tuple[ComparedFact, ...]
    comparison_key: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What a number has otherwise than the unmarked ones of its column, both for people."""

    name: str
    here: str
    unmarked: str


@dataclass(frozen=True, kw_only=True)
class MetricCell:
    """The number of a run in a column; mark: empty where it is like most of the column."""

    result: MetricResult
    mark: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True, kw_only=True)
class MetricColumn:
    """One metric of several runs, in their order; None for a run without it.

    comparison_key: of the unmarked, None of a column without numbers.
    """

    name: str
    comparison_key: str | None
    cells: tuple[MetricCell | None, ...]


@dataclass(frozen=True, kw_only=True)
class UnreadableEvaluation:
    """A file in a run's evals/ that cannot be read, and why."""

    run: str
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class MeasuredListing:
    """Runs of a runs directory, out of `total_runs`, with columns of metrics.

    sorted_by: a metric or another column, best first unless `reverse`; None: newest first.
    """

    home: Path
    total_runs: int
    sorted_by: str | None
    reverse: bool
    runs: tuple[RunRow, ...]
    columns: tuple[MetricColumn, ...]
    unreadable: tuple[UnreadableEvaluation, ...]
