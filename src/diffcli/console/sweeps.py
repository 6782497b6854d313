"""What `eval --sweep` shows: a table for people, tab-separated rows for pipes, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffcli.console.numbers import duration_text, significant
from diffcli.console.rows import print_rows, printable, stdout_is_watched
from diffcli.console.terminal import print_json, print_next, print_notice, rich_console
from diffcli.records.image_evaluations import Metric
from diffcli.records.sweeps import (
    SWEEP_SCHEMA,
    AxisName,
    MetricOverSeeds,
    SeedSpread,
    Sweep,
    SweepPoint,
    SweepResult,
    SweepSettings,
)
from diffcli.registry.json_records import encode

if TYPE_CHECKING:
    from rich.table import Table

_SEED: AxisName = "seed"
_COST = ("model_calls", "seconds_per_image")
# in a table, where a line is broken between words
_NARROW_COST = ("model calls", "s/image")


def show_sweep(result: SweepResult, *, as_json: bool) -> None:
    """The points, one a line, what could not be computed, and where all of it is kept."""
    sweep = result.sweep
    if as_json:
        place = {
            "name": result.name,
            "path": encode(result.path),
            "picture": encode(result.picture),
            "already_there": result.already_there,
        }
        print_json({"schema": SWEEP_SCHEMA, **place, **encode(sweep)})
        return
    print_notice(_description(result))
    header, *rows = sweep_cells(sweep)
    if stdout_is_watched():
        rich_console(sys.stdout).print(_table(header, rows, axes=len(sweep.axes)))
    else:
        print_rows([header, *rows])
    for skipped in sweep.skipped:
        print_notice(f"not computed: {skipped.name}: {skipped.reason}")
    for warning in sweep.warnings:
        print_notice(f"warning: {warning}")
    print_notice(f"record: {printable(str(result.path))}")
    if result.picture is not None:
        print_notice(f"picture: {printable(str(result.picture))}")
    print_next(f"diffcli runs show {sweep.run}")


def sweep_cells(sweep: Sweep) -> list[list[str]]:
    """The header, a row for each point, then one for each mean over seeds; empty where nothing is known."""
    axes = [axis.name for axis in sweep.axes]
    names = list(dict.fromkeys(metric.name for point in sweep.points for metric in point.metrics))
    rows = [[*axes, *_COST, *names]]
    rows += [_point_cells(point, axes, names) for point in sweep.points]
    rows += [_spread_cells(spread, axes, names) for spread in sweep.spreads]
    return rows


def _point_cells(point: SweepPoint, axes: Sequence[AxisName], names: Sequence[str]) -> list[str]:
    values = {metric.name: _value(metric) for metric in point.metrics}
    return [
        *(_setting(point.settings, axis) for axis in axes),
        *_cost(point.model_calls, point.seconds_per_image),
        *(values.get(name, "") for name in names),
    ]


def _spread_cells(spread: SeedSpread, axes: Sequence[AxisName], names: Sequence[str]) -> list[str]:
    seeds = len(spread.seeds)
    values = {metric.name: _mean(metric, seeds) for metric in spread.metrics}
    whose = f"{seeds} seeds" if seeds > 1 else "1 seed"
    return [
        *(whose if axis == _SEED else _setting(spread.settings, axis) for axis in axes),
        *_cost(spread.model_calls, spread.seconds_per_image),
        *(values.get(name, "") for name in names),
    ]


def _setting(settings: SweepSettings, axis: AxisName) -> str:
    value = getattr(settings, axis)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _cost(model_calls: int, seconds_per_image: float | None) -> tuple[str, str]:
    return str(model_calls), "" if seconds_per_image is None else significant(seconds_per_image)


def _value(metric: Metric) -> str:
    return significant(metric.value)


def _mean(metric: MetricOverSeeds, seeds: int) -> str:
    spread = "" if metric.deviation is None else f" +- {significant(metric.deviation)}"
    # where it could not be computed for all
    count = "" if metric.count == seeds else f" over {metric.count}"
    return f"{significant(metric.mean)}{spread}{count}"


def _description(result: SweepResult) -> str:
    sweep = result.sweep
    points = "1 point" if len(sweep.points) == 1 else f"{len(sweep.points)} points"
    took = "already evaluated" if result.already_there else f"in {duration_text(sweep.conditions.seconds)}"
    beside = "" if sweep.reference is None else f", beside {sweep.reference.location}"
    return printable(
        f"{sweep.run} at step {sweep.checkpoint}: {points} of {sweep.samples} samples{beside}; "
        f"features: {sweep.extractor.name}; {took}"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, axes: int) -> Table:
    """The cells, of which so many columns are axes and two the cost."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in header[:axes]:
        table.add_column(column, justify="left" if column == "solver" else "right", no_wrap=True)
    for column in (*_NARROW_COST, *header[axes + len(_COST) :]):
        table.add_column(column, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
