"""A runs directory as rows, newest first; only what is shown is read, and one broken run hides no other."""

from __future__ import annotations

import os
import time
from pathlib import Path

from diffcli.errors import CorruptError, StorageError
from diffcli.records.runs import RunListing, RunRow
from diffcli.registry.ids import run_id, run_numbers
from diffcli.registry.metrics import last_loss
from diffcli.registry.paths import RunPaths
from diffcli.registry.run_record import read_annotations, read_heading
from diffcli.registry.size import size_on_disk
from diffcli.registry.state import observe
from diffcli.registry.status import read_status


def list_runs(home: Path, *, limit: int | None, sizes: bool) -> RunListing:
    """The newest `limit` runs of a runs directory, or all; the newest has the highest number."""
    numbers = run_numbers(home)
    shown = numbers if limit is None else numbers[:limit]
    rows = (row_of(RunPaths(home / run_id(number)), sizes=sizes) for number in shown)
    return RunListing(home=home, total_runs=len(numbers), runs=tuple(row for row in rows if row is not None))


def row_of(run: RunPaths, *, sizes: bool) -> RunRow | None:
    """One run as a row, `unreadable` with the reason if it must be; None when it is gone by now."""
    size = size_on_disk(run.directory) if sizes else None
    try:
        return _readable_row(run, size)
    except (CorruptError, StorageError) as error:
        if not os.path.lexists(run.directory):
            return None
        return _unreadable_row(run, size, error.what)


def _readable_row(run: RunPaths, size_bytes: int | None) -> RunRow:
    heading = read_heading(run)
    status = read_status(run)
    observation = observe(run, status)
    return RunRow(
        id=run.directory.name,
        name=read_annotations(run, heading).name,
        preset=heading.preset,
        state=observation.state,
        reason=observation.reason,
        step=status.step,
        total_steps=status.total_steps,
        loss=last_loss(run.metrics),
        created_at=heading.created_at,
        age_seconds=max(0.0, time.time() - heading.created_at.timestamp()),
        size_bytes=size_bytes,
    )


def _unreadable_row(run: RunPaths, size_bytes: int | None, reason: str) -> RunRow:
    return RunRow(
        id=run.directory.name,
        name=None,
        preset=None,
        state="unreadable",
        reason=reason,
        step=None,
        total_steps=None,
        loss=None,
        created_at=None,
        age_seconds=None,
        size_bytes=size_bytes,
    )
