"""One run on the screen: its parts for people, rows of part, name and value for pipes, JSON for programs."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from diffcli.console.numbers import bytes_text, duration_text, significant
from diffcli.console.rows import print_rows, printable, stdout_is_watched
from diffcli.console.run_evaluations import evaluation_lines
from diffcli.console.run_table import pins_text
from diffcli.console.terminal import print_json, print_notice, rich_console
from diffcli.records.run_details import AttemptSummary, ConfigValue, RunDetails, Series
from diffcli.registry.json_records import encode

_SCHEMA = 1
_COLUMN_GAP = 2
_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.:-=+*#"


@dataclass(frozen=True, kw_only=True)
class _Fact:
    """One line about a run: which part of it, what about it, and the value."""

    part: str
    name: str
    value: str


def draw_details(details: RunDetails) -> None:
    """Draw one run: each part under its heading, or as rows of part, name and value."""
    if stdout_is_watched():
        _print_parts(list(_facts(details, _sections(details.config))))
    else:
        facts = _facts(details, _settings(details.config))
        print_rows([(fact.part, fact.name, fact.value) for fact in facts])
    if details.unreadable_metric_lines:
        print_notice(f"{details.unreadable_metric_lines} torn lines of metrics.jsonl were passed over")
    for evaluation in details.evaluations:
        if evaluation.problem is not None:
            print_notice(f"an evaluation cannot be read: {evaluation.problem}")


def print_details_json(details: RunDetails) -> None:
    """One run as one JSON object."""
    print_json({"schema": _SCHEMA, **encode(details)})


def sparkline(series: Series, *, bars: str = _BARS) -> str:
    """The values as bars of growing height, scaled between the smallest and the largest."""
    if not series.values:
        return ""
    low, high = min(series.values), max(series.values)
    scale = (len(bars) - 1) / (high - low) if high > low else 0.0
    return "".join(bars[round((value - low) * scale)] for value in series.values)


def _print_parts(facts: Sequence[_Fact]) -> None:
    from rich.table import Table
    from rich.text import Text

    console = rich_console(sys.stdout)
    for part in dict.fromkeys(fact.part for fact in facts):
        console.print(Text(printable(part), style="bold"))
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, _COLUMN_GAP, 0, 0))
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        for fact in facts:
            if fact.part == part:
                table.add_row(Text(f"  {printable(fact.name)}"), Text(printable(fact.value)))
        console.print(table)


def _facts(details: RunDetails, config: Iterable[_Fact]) -> Iterator[_Fact]:
    yield from _run_facts(details)
    yield from _import_facts(details)
    yield from _dataset_facts(details)
    yield from config
    for attempt in details.attempts:
        yield _Fact(part="attempts", name=str(attempt.number), value=_attempt_text(attempt))
    yield from _metric_facts(details)
    yield from _checkpoint_facts(details)
    for sample in details.samples:
        value = f"{sample.archive or 'unfinished'}, {bytes_text(sample.size_bytes)}"
        yield _Fact(part="samples", name=sample.name, value=value)
    for evaluation in details.evaluations:
        yield _Fact(part="evals", name=evaluation.name, value=str(evaluation.path))
    for evaluation in details.evaluations:
        for line in evaluation_lines(evaluation):
            yield _Fact(part=f"eval {evaluation.name}", name=line.name, value=line.value)


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
        ("pinned", pins_text(row)),
    )
    yield from (_Fact(part="run", name=name, value=value) for name, value in lines if value)


def _import_facts(details: RunDetails) -> Iterator[_Fact]:
    if details.imported is None:
        return
    for file in details.imported.files:
        yield _Fact(part="imported", name="file", value=file)
    yield _Fact(part="imported", name="preset", value=details.imported.how)
    for notice in details.imported.notices:
        yield _Fact(part="imported", name="notice", value=notice)


def _dataset_facts(details: RunDetails) -> Iterator[_Fact]:
    dataset = details.dataset
    if dataset is None:
        yield _Fact(part="dataset", name="path", value="not known until the run is resumed")
        return
    weak = " (weak: names and sizes only)" if dataset.weak_hash else ""
    lines = (
        ("path", dataset.path),
        ("images", str(dataset.count)),
        ("classes", str(dataset.classes)),
        ("hash", f"{dataset.content_hash}{weak}"),
    )
    yield from (_Fact(part="dataset", name=name, value=value) for name, value in lines)


def _checkpoint_facts(details: RunDetails) -> Iterator[_Fact]:
    for checkpoint in details.checkpoints:
        state = ("" if checkpoint.complete else ", incomplete") + (", pinned" if checkpoint.pinned else "")
        value = f"{bytes_text(checkpoint.size_bytes)}{state}"
        yield _Fact(part="checkpoints", name=f"step {checkpoint.step}", value=value)
    for damaged in details.damaged:
        name = str(damaged.directory.relative_to(details.directory))
        yield _Fact(part="damaged", name=name, value=bytes_text(damaged.size_bytes))
    for abandoned in details.abandoned:
        name = f"{abandoned.kind} {abandoned.step}, by attempt {abandoned.attempt}"
        yield _Fact(part="abandoned", name=name, value=bytes_text(abandoned.size_bytes))
    if details.ema_snapshots:
        total = sum(snapshot.size_bytes for snapshot in details.ema_snapshots)
        yield _Fact(
            part="ema-snapshots", name="count", value=f"{len(details.ema_snapshots)}, {bytes_text(total)}"
        )
        steps = ", ".join(str(snapshot.step) for snapshot in details.ema_snapshots)
        yield _Fact(part="ema-snapshots", name="steps", value=steps)


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
    bars = _BARS if printable(_BARS) == _BARS else _PLAIN_BARS
    series = details.loss_series
    if series.values:
        extent = f"{significant(min(series.values))} to {significant(max(series.values))}"
        yield _Fact(part="metrics", name="loss so far", value=f"{sparkline(series, bars=bars)}  {extent}")
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
