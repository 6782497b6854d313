"""Runs on the screen: tables for people, tab-separated rows for pipes, JSON for programs."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from diffcli.console.numbers import bytes_text, duration_text, significant
from diffcli.console.terminal import (
    is_interactive,
    print_json,
    print_next,
    print_notice,
    print_result,
    rich_console,
)
from diffcli.records.runs import (
    AttemptSummary,
    ConfigValue,
    RemovedRuns,
    RestoredRun,
    RunDetails,
    RunListing,
    RunRow,
    Series,
    Trash,
)
from diffcli.registry.json_records import encode

if TYPE_CHECKING:
    from rich.table import Table

_SCHEMA = 1
_COLUMNS = ("id", "name", "preset", "state", "step", "loss", "age", "size")
# what a narrow terminal does without, the most dispensable first
_DISPENSABLE = ("size", "preset", "age", "loss", "name", "step")
_COLUMN_GAP = 2
_STATE_STYLES = {
    "running": "green",
    "stopping": "yellow",
    "completed": "bold",
    "failed": "red",
    "diverged": "red",
    "crashed": "red",
    "stale": "yellow",
    "unreadable": "red",
}
_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.:-=+*#"


@dataclass(frozen=True, kw_only=True)
class _Fact:
    """One line about a run: which part of it, what about it, and the value."""

    part: str
    name: str
    value: str


def draw_listing(listing: RunListing) -> None:
    """Draw a list of runs, and say on stderr what is not in it."""
    rows = [_cells(run) for run in listing.runs]
    if not _watched():
        _print_rows([_COLUMNS, *rows])
    elif rows:
        rich_console(sys.stdout).print(_listing_table(rows, rich_console(sys.stdout).width))
    for run in listing.runs:
        if run.state == "unreadable":
            print_notice(_printable(f"{run.id}: {run.reason}"))
    if not listing.total_runs:
        print_notice(_printable(f"there are no runs in {listing.home}"))
        print_next("diffcli train --preset digits")
    elif len(rows) < listing.total_runs:
        print_notice(f"{listing.total_runs - len(rows)} older runs are not shown (--all, -n)")


def print_listing_json(listing: RunListing) -> None:
    """A list of runs as one JSON object."""
    print_json({"schema": _SCHEMA, **encode(listing)})


def draw_details(details: RunDetails) -> None:
    """Draw one run: each part under its heading, or as rows of part, name and value."""
    if _watched():
        _print_parts(list(_facts(details, _sections(details.config))))
    else:
        facts = _facts(details, _settings(details.config))
        _print_rows([(fact.part, fact.name, fact.value) for fact in facts])
    if details.unreadable_metric_lines:
        print_notice(f"{details.unreadable_metric_lines} torn lines of metrics.jsonl were passed over")


def print_details_json(details: RunDetails) -> None:
    """One run as one JSON object."""
    print_json({"schema": _SCHEMA, **encode(details)})


def draw_removed(removed: RemovedRuns) -> None:
    """Tell what went to the trash, one id a line, and how to get it back."""
    for run_id in removed.ids:
        print_result(run_id)
    print_notice(f"moved to the trash: {len(removed.ids)}")
    print_next(*(f"diffcli runs restore {run_id}" for run_id in removed.ids), "diffcli runs purge")


def draw_restored(restored: RestoredRun) -> None:
    """Tell where the run is again."""
    print_result(_printable(str(restored.directory)))
    print_next(f"diffcli runs show {restored.id}")


def draw_purged(purged: Trash) -> None:
    """Tell what was deleted for good, one id a line."""
    for run_id in purged.ids:
        print_result(run_id)
    print_notice(f"deleted for good: {len(purged.ids)} ({bytes_text(purged.size_bytes)})")


def removal_question(ids: Sequence[str]) -> str:
    """What `rm` asks."""
    return f"Move {', '.join(ids)} to the trash?"


def purge_question(trash: Trash) -> str:
    """What `purge` asks."""
    return f"Delete {', '.join(trash.ids)} ({bytes_text(trash.size_bytes)}) for good?"


def sparkline(series: Series, *, bars: str = _BARS) -> str:
    """The values as bars of growing height, scaled between the smallest and the largest."""
    if not series.values:
        return ""
    low, high = min(series.values), max(series.values)
    scale = (len(bars) - 1) / (high - low) if high > low else 0.0
    return "".join(bars[round((value - low) * scale)] for value in series.values)


def _watched() -> bool:
    return sys.stdout is not None and is_interactive(sys.stdout)


def _print_rows(rows: Sequence[Sequence[str]]) -> None:
    print_result("\n".join("\t".join(_printable(cell) for cell in row) for row in rows))


def _printable(text: str) -> str:
    """Text without anything that moves a cursor, breaks a row, or that stdout cannot encode."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def _cells(run: RunRow) -> tuple[str, ...]:
    """The columns of a row; empty where nothing is known."""
    return (
        run.id,
        run.name or "",
        run.preset or "",
        run.state,
        "" if run.step is None else f"{run.step}/{run.total_steps}",
        "" if run.loss is None else significant(run.loss),
        "" if run.age_seconds is None else duration_text(run.age_seconds),
        "" if run.size_bytes is None else bytes_text(run.size_bytes),
    )


def _listing_table(rows: Sequence[tuple[str, ...]], width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    shown = _columns_that_fit(rows, width)
    table = Table(box=None, pad_edge=False, padding=(0, _COLUMN_GAP, 0, 0), header_style="dim")
    for column in shown:
        right = column in ("step", "loss", "age", "size")
        table.add_column(column, justify="right" if right else "left", no_wrap=True, overflow="fold")
    for row in rows:
        cells = dict(zip(_COLUMNS, row, strict=True))
        table.add_row(
            *(
                Text(
                    _printable(cells[column]),
                    style=_STATE_STYLES.get(cells[column], "") * (column == "state"),
                )
                for column in shown
            )
        )
    return table


def _columns_that_fit(rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    widths = {
        column: max(len(cell) for cell in cells) + _COLUMN_GAP
        for column, cells in zip(_COLUMNS, zip(_COLUMNS, *rows, strict=True), strict=True)
    }
    shown = list(_COLUMNS)
    for column in _DISPENSABLE:
        if sum(widths[name] for name in shown) <= width:
            break
        shown.remove(column)
    return shown


def _print_parts(facts: Sequence[_Fact]) -> None:
    from rich.table import Table
    from rich.text import Text

    console = rich_console(sys.stdout)
    for part in dict.fromkeys(fact.part for fact in facts):
        console.print(Text(part, style="bold"))
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, _COLUMN_GAP, 0, 0))
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        for fact in facts:
            if fact.part == part:
                table.add_row(Text(f"  {_printable(fact.name)}"), Text(_printable(fact.value)))
        console.print(table)


def _facts(details: RunDetails, config: Iterable[_Fact]) -> Iterator[_Fact]:
    yield from _run_facts(details)
    yield from _dataset_facts(details)
    yield from config
    for attempt in details.attempts:
        yield _Fact(part="attempts", name=str(attempt.number), value=_attempt_text(attempt))
    yield from _metric_facts(details)
    for checkpoint in details.checkpoints:
        state = "" if checkpoint.complete else ", incomplete"
        value = f"{bytes_text(checkpoint.size_bytes)}{state}"
        yield _Fact(part="checkpoints", name=f"step {checkpoint.step}", value=value)
    for sample in details.samples:
        value = f"{sample.archive or 'unfinished'}, {bytes_text(sample.size_bytes)}"
        yield _Fact(part="samples", name=sample.name, value=value)
    for evaluation in details.evaluations:
        yield _Fact(part="evals", name=evaluation.name, value=str(evaluation.path))


def _run_facts(details: RunDetails) -> Iterator[_Fact]:
    row = details.row
    created = row.created_at.astimezone().isoformat(" ", "seconds") if row.created_at else ""
    age = f" ({duration_text(row.age_seconds)} ago)" if row.age_seconds is not None else ""
    lines = (
        ("id", row.id),
        ("name", row.name or ""),
        ("preset", row.preset or ""),
        ("state", f"{row.state}: {row.reason}" if row.reason else row.state),
        ("step", "" if row.step is None else f"{row.step}/{row.total_steps}"),
        ("created", f"{created}{age}"),
        ("directory", str(details.directory)),
        ("size", "" if row.size_bytes is None else bytes_text(row.size_bytes)),
        ("command", shlex.join(details.command_line)),
        ("commit", details.git_commit or ""),
        ("parent", details.parent or ""),
        ("tags", ", ".join(details.tags)),
        ("note", details.note),
        ("pinned", "yes" if details.pinned else ""),
    )
    yield from (_Fact(part="run", name=name, value=value) for name, value in lines if value)


def _dataset_facts(details: RunDetails) -> Iterator[_Fact]:
    dataset = details.dataset
    weak = " (weak: names and sizes only)" if dataset.weak_hash else ""
    lines = (
        ("path", dataset.path),
        ("images", str(dataset.count)),
        ("classes", str(dataset.classes)),
        ("hash", f"{dataset.content_hash}{weak}"),
    )
    yield from (_Fact(part="dataset", name=name, value=value) for name, value in lines)


def _settings(config: Sequence[ConfigValue]) -> Iterator[_Fact]:
    """A line for each setting, its value as `--set` takes it."""
    for setting in config:
        yield _Fact(part="config", name=setting.key, value=json.dumps(setting.value, ensure_ascii=False))


def _sections(config: Sequence[ConfigValue]) -> Iterator[_Fact]:
    """A paragraph for each section."""
    for section, settings in groupby(_settings(config), key=lambda fact: fact.name.partition(".")[0]):
        values = (f"{fact.name.partition('.')[2]} = {fact.value}" for fact in settings)
        yield _Fact(part="config", name=section, value=" · ".join(values))


def _metric_facts(details: RunDetails) -> Iterator[_Fact]:
    if details.metrics_step is None:
        return
    bars = _BARS if _printable(_BARS) == _BARS else _PLAIN_BARS
    series = details.loss_series
    if series.values:
        low, high = significant(min(series.values)), significant(max(series.values))
        yield _Fact(
            part="metrics", name="loss so far", value=f"{sparkline(series, bars=bars)}  {low} to {high}"
        )
    yield _Fact(part="metrics", name="step", value=str(details.metrics_step))
    for metric in details.metrics:
        if metric.name != "step":
            yield _Fact(part="metrics", name=metric.name, value=_number_text(metric.value))


def _attempt_text(attempt: AttemptSummary) -> str:
    processes = "process" if attempt.world_size == 1 else "processes"
    parts = [
        f"{attempt.started_at.astimezone().isoformat(' ', 'seconds')} from step {attempt.first_step}",
        f"{attempt.world_size} {processes} on {attempt.device}, {attempt.precision}",
        attempt.process,
        *attempt.changes,
    ]
    return "; ".join(parts)


def _number_text(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else significant(value)
