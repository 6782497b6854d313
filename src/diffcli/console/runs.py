"""Runs on the screen: a table for people, tab-separated rows for pipes, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffcli.console.numbers import bytes_text
from diffcli.console.rows import printable
from diffcli.console.run_table import draw_run_table
from diffcli.console.terminal import print_json, print_next, print_notice, print_result
from diffcli.records.runs import Pin, RemovedRuns, RestoredRun, RunListing, RunRow, Trash
from diffcli.registry.json_records import encode

_SCHEMA = 1


def draw_listing(listing: RunListing) -> None:
    """Draw a list of runs, and say on stderr what is not in it."""
    draw_run_table(listing.runs)
    tell_unreadable_runs(listing.runs)
    tell_what_is_not_shown(listing.home, len(listing.runs), listing.total_runs, which="older")


def tell_unreadable_runs(runs: Sequence[RunRow]) -> None:
    """Why runs could not be read, on stderr."""
    for run in runs:
        if run.state == "unreadable":
            print_notice(printable(f"{run.id}: {run.reason}"))


def tell_what_is_not_shown(home: Path, shown: int, total: int, *, which: str) -> None:
    """How many runs a list lacks, on stderr; which: `older`, or what they are in its order."""
    if not total:
        print_notice(printable(f"there are no runs in {home}"))
        print_next("diffcli train --preset digits")
    elif shown < total:
        print_notice(f"{total - shown} {which} runs are not shown (--all, -n)")


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


def _pin_text(pin: Pin) -> str:
    return pin.run_id if pin.step is None else f"{pin.run_id}@{pin.step}"
