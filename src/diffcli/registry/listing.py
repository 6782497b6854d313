"""A runs directory as rows, newest first; only what is shown is read, and one broken run hides no other."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffcli.errors import CorruptError, StorageError
from diffcli.records.runs import RunListing, RunRow
from diffcli.registry.ids import run_id, run_numbers
from diffcli.registry.metrics import last_loss
from diffcli.registry.paths import RunPaths
from diffcli.registry.row_index import KeptRow, file_facts, read_index, settled, write_index
from diffcli.registry.run_record import read_annotations, read_heading
from diffcli.registry.size import size_on_disk
from diffcli.registry.state import observe
from diffcli.registry.status import read_status

# reading the index takes as long as reading some hundred runs; writing it, some more
_INDEXED_FROM_RUNS = 500
_WRITTEN_FROM_ROWS = 200
# what only a new attempt changes, and that writes status.json
_AT_REST = frozenset({"created", "completed", "stopped", "failed", "diverged"})


def list_runs(home: Path, *, limit: int | None, sizes: bool) -> RunListing:
    """The newest `limit` runs of a runs directory, or all; the newest has the highest number.

    A long list without sizes takes what it can from the index, and may replace it.
    """
    numbers = run_numbers(home)
    shown = numbers if limit is None else numbers[:limit]
    if sizes or len(shown) < _INDEXED_FROM_RUNS:
        rows = _read_rows(home, shown, sizes=sizes)
    else:
        rows = _indexed_rows(home, shown, all_numbers=numbers)
    return RunListing(home=home, total_runs=len(numbers), runs=tuple(rows))


def _read_rows(home: Path, numbers: Sequence[int], *, sizes: bool) -> Iterator[RunRow]:
    for number in numbers:
        row = row_of(RunPaths(home / run_id(number)), sizes=sizes)
        if row is not None:
            yield row


def _indexed_rows(home: Path, numbers: Sequence[int], *, all_numbers: Sequence[int]) -> Iterator[RunRow]:
    """The rows of runs that did not change since the index was written from there, the others afresh."""
    began = time.monotonic_ns()
    kept = read_index(home)
    fresh: dict[int, KeptRow] = {}
    for number in numbers:
        facts = file_facts(f"{home}/{run_id(number)}")
        known = kept.get(number)
        if known is not None and known.facts == facts:
            yield known.row
            continue
        for row in _read_rows(home, (number,), sizes=False):
            if row.state in _AT_REST:
                fresh[number] = KeptRow(facts=facts, row=row)
            yield row
    if len(fresh) < _WRITTEN_FROM_ROWS:
        return
    fresh = dict(settled(home, fresh, age_nanoseconds=time.monotonic_ns() - began))
    if len(fresh) >= _WRITTEN_FROM_ROWS:
        known_now = {**kept, **fresh}
        write_index(home, {number: known_now[number] for number in all_numbers if number in known_now})


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
    annotations = read_annotations(run, heading)
    return RunRow(
        id=run.directory.name,
        name=annotations.name,
        preset=heading.preset,
        state=observation.state,
        reason=observation.reason,
        step=status.step,
        total_steps=status.total_steps,
        loss=last_loss(run.metrics),
        created_at=heading.created_at,
        age_seconds=max(0.0, time.time() - heading.created_at.timestamp()),
        pinned=annotations.pinned,
        pinned_steps=annotations.pinned_steps,
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
        pinned=False,
        pinned_steps=(),
        size_bytes=size_bytes,
    )
