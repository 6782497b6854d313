"""Runs with their numbers side by side, a mark at those that are unlike, and what the marks mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffcli.console.numbers import significant
from diffcli.console.rows import printable, stdout_is_watched
from diffcli.console.run_table import Column, draw_run_table
from diffcli.console.runs import tell_unreadable_runs, tell_what_is_not_shown
from diffcli.console.terminal import print_json, print_notice
from diffcli.records.run_metrics import Difference, MeasuredListing, MetricCell, MetricColumn
from diffcli.registry.json_records import encode
from diffcli.registry.metric_names import BITS_PER_DIM

_SCHEMA = 1


def draw_measured_listing(listing: MeasuredListing) -> None:
    """Draw runs with their numbers; on stderr what the marks mean, and what could not be read or shown."""
    columns = [_column(column) for column in listing.columns]
    left_out = draw_run_table(listing.runs, columns, sorted_by=listing.sorted_by)
    tell_unreadable_runs(listing.runs)
    for unreadable in listing.unreadable:
        print_notice(printable(f"{unreadable.run}: an evaluation cannot be read: {unreadable.reason}"))
    if left_out:
        print_notice(f"no room for {', '.join(left_out)} (a wider terminal, a pipe, or --json)")
    notes = dict(_notes(listing))
    if notes:
        print_notice("numbers with a letter are not to be compared with those without:")
    for mark, differences in notes.items():
        print_notice(printable(f"  {mark}: {'; '.join(map(_difference_text, differences))}"))
    which = "older" if listing.sorted_by is None else "more"
    tell_what_is_not_shown(listing.home, len(listing.runs), listing.total_runs, which=which)


def print_measured_listing_json(listing: MeasuredListing) -> None:
    """Runs with their numbers as one JSON object; `metrics` of a run are by name, null for none."""
    columns = {column.name: column for column in listing.columns}
    runs = [
        {
            **encode(run),
            "metrics": {name: _cell_json(column.cells[place]) for name, column in columns.items()},
        }
        for place, run in enumerate(listing.runs)
    ]
    print_json(
        {
            "schema": _SCHEMA,
            "home": encode(listing.home),
            "total_runs": listing.total_runs,
            "sorted_by": listing.sorted_by,
            "reverse": listing.reverse,
            "columns": [
                {"name": column.name, "comparison_key": column.comparison_key} for column in listing.columns
            ],
            "runs": runs,
            "unreadable_evaluations": encode(listing.unreadable),
        }
    )


def _cell_json(cell: MetricCell | None) -> Any:
    if cell is None:
        return None
    return {**encode(cell.result), "mark": cell.mark, "differences": encode(cell.differences)}


def _column(column: MetricColumn) -> Column:
    """Numbers with their marks; on a terminal the numbers end in line, whether a mark follows or not."""
    numbers = [_number_text(column.name, cell) for cell in column.cells]
    marks = [cell.mark if cell else "" for cell in column.cells]
    if not stdout_is_watched():
        pairs = zip(numbers, marks, strict=True)
        return Column(name=column.name, cells=tuple(f"{number} {mark}".rstrip() for number, mark in pairs))
    width = max(map(len, [column.name, *numbers]))
    tail = max(map(len, marks), default=0)
    tail += tail > 0
    cells = (
        f"{number:>{width}}{f' {mark}' if mark else '':<{tail}}"
        for number, mark in zip(numbers, marks, strict=True)
    )
    return Column(name=column.name, cells=tuple(cells), indent=width - len(column.name))


def _number_text(name: str, cell: MetricCell | None) -> str:
    if cell is None:
        return ""
    # as `eval` prints it
    return f"{cell.result.value:.4f}" if name == BITS_PER_DIM else significant(cell.result.value)


def _notes(listing: MeasuredListing) -> Iterator[tuple[str, tuple[Difference, ...]]]:
    for column in listing.columns:
        for cell in column.cells:
            if cell is not None and cell.mark:
                yield cell.mark, cell.differences


def _difference_text(difference: Difference) -> str:
    return f"{difference.name} {difference.here} in place of {difference.unmarked}"
