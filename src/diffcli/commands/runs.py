"""The list of runs."""

from __future__ import annotations

from pathlib import Path

from diffcli.records.runs import RunListing
from diffcli.registry import listing

# the size of a run takes a look at each of its files
_SIZES_UP_TO_RUNS = 100


def list_runs(home: Path, *, limit: int | None) -> RunListing:
    """The newest `limit` runs, or all; sizes only in short lists."""
    return listing.list_runs(home, limit=limit, sizes=sizes_are_shown(limit))


def sizes_are_shown(limit: int | None) -> bool:
    """Whether a list of at most `limit` runs, None for all, is a short one."""
    return limit is not None and limit <= _SIZES_UP_TO_RUNS
