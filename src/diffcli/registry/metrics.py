"""The metric log of a run: a row for each log interval, with the attempt that wrote it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffcli.errors import CorruptError
from diffcli.registry.json_lines import append_line, last_lines, read_lines
from diffcli.registry.json_records import decode, encode

if TYPE_CHECKING:
    from diffcli.records.training import MetricRow


@dataclass(frozen=True, kw_only=True)
class LoggedRow:
    """A row of metrics and the attempt that wrote it, counted from 1."""

    attempt: int
    row: MetricRow


@dataclass(frozen=True, kw_only=True)
class MetricLog:
    """The rows of a run in the order of their steps, each from the latest attempt that came by.

    A killed process leaves a torn line; such lines are counted and passed over.
    """

    rows: tuple[LoggedRow, ...]
    unreadable_lines: int


def append_metrics(path: Path, row: LoggedRow) -> None:
    """Append a row to metrics.jsonl; StorageError when it does not fit."""
    append_line(path, {"attempt": row.attempt, **encode(row.row)})


def read_metrics(path: Path) -> MetricLog:
    """The rows that count; an empty log when there is no file."""
    rows: list[LoggedRow] = []
    unreadable = 0
    for value in read_lines(path):
        row = _decoded(value, path)
        if row is None:
            unreadable += 1
            continue
        # a resumed attempt goes on from an earlier step: what the one before did after it no longer counts
        while rows and rows[-1].row.step >= row.row.step:
            rows.pop()
        rows.append(row)
    return MetricLog(rows=tuple(rows), unreadable_lines=unreadable)


def last_loss(path: Path) -> float | None:
    """The loss of the last row, read from the end of the file; None when there is no row."""
    for row in last_lines(path):
        loss = row.get("loss")
        overall = loss.get("overall") if isinstance(loss, dict) else None
        if isinstance(overall, (int, float, str)):
            # text stands for what JSON has no number for
            with contextlib.suppress(ValueError):
                return float(overall)
    return None


def _decoded(value: object, path: Path) -> LoggedRow | None:
    # a list of runs needs only the last loss, and is to start at once
    from diffcli.records.training import MetricRow

    if not isinstance(value, dict):
        return None
    attempt = value.pop("attempt", None)
    if type(attempt) is not int:
        return None
    try:
        return LoggedRow(attempt=attempt, row=decode(MetricRow, value, path))
    except CorruptError:
        return None
