"""Runs as a table that fits the terminal, or as rows for pipes; other columns may stand beside them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffcli.console.numbers import bytes_text, duration_text, significant
from diffcli.console.rows import print_rows, printable, stdout_is_watched
from diffcli.console.terminal import rich_console
from diffcli.records.runs import RunRow

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = ("id", "name", "preset", "state", "step", "loss", "age", "size", "pinned")
_NUMBERS = frozenset({"step", "loss", "age", "size"})
# what a narrow terminal does without, the most dispensable first
_DISPENSABLE = ("pinned", "size", "preset", "age", "loss", "name", "step")
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


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column with a cell for each run, empty where nothing is known.

    indent: of the name above the cells of a table, which may be wider.
    """

    name: str
    cells: tuple[str, ...]
    indent: int = 0

    @property
    def width(self) -> int:
        """Of a column that has cells: letters of the widest cell, and the gap to the next column."""
        return max(self.indent + len(self.name), *map(len, self.cells)) + _COLUMN_GAP


def draw_run_table(
    runs: Sequence[RunRow], beside: Sequence[Column] = (), *, sorted_by: str | None = None
) -> tuple[str, ...]:
    """Draw runs and the columns beside them; the names of those beside them that have no room.

    sorted_by: what a narrow terminal keeps longest.
    """
    columns = [*_run_columns(runs), *beside]
    if not stdout_is_watched():
        print_rows([[column.name for column in columns], *zip(*(c.cells for c in columns), strict=True)])
        return ()
    if not runs:
        return ()
    console = rich_console(sys.stdout)
    dispensable = [*_DISPENSABLE, *(["state", *(c.name for c in reversed(beside))] if beside else [])]
    if sorted_by in dispensable:
        dispensable.remove(sorted_by)
        dispensable.append(sorted_by)
    shown = _columns_that_fit(columns, dispensable, console.width)
    console.print(_table(shown, [run.state for run in runs]))
    return tuple(column.name for column in beside if column not in shown)


def pins_text(run: RunRow) -> str:
    """`run` when it is pinned itself, and @STEP for each pinned checkpoint."""
    return ", ".join([*(["run"] if run.pinned else []), *(f"@{step}" for step in run.pinned_steps)])


def _run_columns(runs: Sequence[RunRow]) -> list[Column]:
    rows = [_cells(run) for run in runs]
    return [Column(name=name, cells=tuple(row[place] for row in rows)) for place, name in enumerate(_COLUMNS)]


def _cells(run: RunRow) -> tuple[str, ...]:
    """What the columns say of a run; empty where nothing is known."""
    return (
        run.id,
        run.name or "",
        run.preset or "",
        run.state,
        "" if run.step is None else f"{run.step}/{run.total_steps}",
        "" if run.loss is None else significant(run.loss),
        "" if run.age_seconds is None else duration_text(run.age_seconds),
        "" if run.size_bytes is None else bytes_text(run.size_bytes),
        pins_text(run),
    )


def _columns_that_fit(columns: Sequence[Column], dispensable: Sequence[str], width: int) -> list[Column]:
    shown = [column for column in columns if column.name != "pinned" or any(column.cells)]
    for name in dispensable:
        if sum(column.width for column in shown) <= width:
            break
        shown = [column for column in shown if column.name != name]
    return shown


def _table(columns: Sequence[Column], states: Sequence[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, _COLUMN_GAP, 0, 0), header_style="dim")
    for column in columns:
        right = column.name in _NUMBERS
        heading = Text(" " * column.indent + printable(column.name))
        table.add_column(heading, justify="right" if right else "left", no_wrap=True, overflow="fold")
    for state, *cells in zip(states, *(column.cells for column in columns), strict=True):
        styles = [_STATE_STYLES.get(state, "") if column.name == "state" else "" for column in columns]
        table.add_row(
            *(Text(printable(cell), style=style) for cell, style in zip(cells, styles, strict=True))
        )
    return table
