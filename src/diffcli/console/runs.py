"""Runs on the screen: a table for people, tab-separated rows for pipes, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffcli.console.numbers import bytes_text, duration_text, significant
from diffcli.console.rows import print_rows, printable, stdout_is_watched
from diffcli.console.terminal import print_json, print_next, print_notice, print_result, rich_console
from diffcli.records.runs import Pin, RemovedRuns, RestoredRun, RunListing, RunRow, Trash
from diffcli.registry.json_records import encode

if TYPE_CHECKING:
    from rich.table import Table

_SCHEMA = 1
_COLUMNS = ("id", "name", "preset", "state", "step", "loss", "age", "size", "pinned")
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


def draw_listing(listing: RunListing) -> None:
    """Draw a list of runs, and say on stderr what is not in it."""
    rows = [_cells(run) for run in listing.runs]
    if not stdout_is_watched():
        print_rows([_COLUMNS, *rows])
    elif rows:
        rich_console(sys.stdout).print(_listing_table(rows, rich_console(sys.stdout).width))
    for run in listing.runs:
        if run.state == "unreadable":
            print_notice(printable(f"{run.id}: {run.reason}"))
    if not listing.total_runs:
        print_notice(printable(f"there are no runs in {listing.home}"))
        print_next("diffcli train --preset digits")
    elif len(rows) < listing.total_runs:
        print_notice(f"{listing.total_runs - len(rows)} older runs are not shown (--all, -n)")


def print_listing_json(listing: RunListing) -> None:
    """A list of runs as one JSON object."""
    print_json({"schema": _SCHEMA, **encode(listing)})


def draw_removed(removed: RemovedRuns) -> None:
    """Tell what went to the trash, one id a line, and how to get it back."""
    for run_id in removed.ids:
        print_result(run_id)
    print_notice(f"moved to the trash: {len(removed.ids)}")
    print_next(*(f"diffcli runs restore {run_id}" for run_id in removed.ids), "diffcli runs purge")


def draw_restored(restored: RestoredRun) -> None:
    """Tell where the run is again."""
    print_result(printable(str(restored.directory)))
    print_next(f"diffcli runs show {restored.id}")


def draw_purged(purged: Trash) -> None:
    """Tell what was deleted for good, one id a line."""
    for run_id in purged.ids:
        print_result(run_id)
    print_notice(f"deleted for good: {len(purged.ids)} ({bytes_text(purged.size_bytes)})")


def draw_pinned(pins: Sequence[Pin]) -> None:
    """Tell what nothing removes from now on, one a line."""
    for pin in pins:
        print_result(_pin_text(pin))
    print_next(f"diffcli runs unpin {' '.join(_pin_text(pin) for pin in pins)}")


def draw_unpinned(pins: Sequence[Pin]) -> None:
    """Tell what may be removed again, one a line."""
    for pin in pins:
        print_result(_pin_text(pin))


def removal_question(ids: Sequence[str]) -> str:
    """What `rm` asks."""
    return f"Move {', '.join(ids)} to the trash?"


def purge_question(trash: Trash) -> str:
    """What `purge` asks."""
    return f"Delete {', '.join(trash.ids)} ({bytes_text(trash.size_bytes)}) for good?"


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
        pins_text(run),
    )


def pins_text(run: RunRow) -> str:
    """`run` when it is pinned itself, and @STEP for each pinned checkpoint."""
    return ", ".join([*(["run"] if run.pinned else []), *(f"@{step}" for step in run.pinned_steps)])


def _pin_text(pin: Pin) -> str:
    return pin.run_id if pin.step is None else f"{pin.run_id}@{pin.step}"


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
        state_style = _STATE_STYLES.get(cells["state"], "")
        table.add_row(
            *(
                Text(printable(cells[column]), style=state_style if column == "state" else "")
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
    if not any(row[_COLUMNS.index("pinned")] for row in rows):
        shown.remove("pinned")
    for column in _DISPENSABLE:
        if sum(widths[name] for name in shown) <= width:
            break
        if column in shown:
            shown.remove(column)
    return shown
