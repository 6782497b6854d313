"""Runs put in order after a kill or a bad disk; what cannot be is told, and nothing of worth is deleted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from diffcli import durable
from diffcli.commands.run_mending import Mending
from diffcli.commands.run_removal import find_runs
from diffcli.errors import CorruptError, LockedError, StorageError
from diffcli.records.run_repair import Finding, RepairedRun
from diffcli.registry.create import abandoned_staging, clear_staging
from diffcli.registry.home import index_of
from diffcli.registry.ids import run_id, run_numbers
from diffcli.registry.listing import list_runs
from diffcli.registry.lock import acquire_lock, lock_holder
from diffcli.registry.paths import RunPaths


@dataclass(frozen=True, kw_only=True)
class RepairRequest:
    """Which runs to put in order; none named: all of them, and the runs directory itself.

    dry_run: only tell what would be done. force: end also runs whose process, on another machine, has given
    no sign of life for minutes.
    """

    home: Path
    references: tuple[str, ...]
    dry_run: bool
    force: bool


def repair_runs(request: RepairRequest) -> Iterator[RepairedRun]:
    """Put one run after the other in order, newest first; one in use is passed over.

    Raises MissingError when a run that was named is not there.
    """
    if request.references:
        runs = find_runs(request.home, request.references)
    else:
        runs = tuple(RunPaths(request.home / run_id(number)) for number in run_numbers(request.home))
    return (_repaired(run, request) for run in runs)


def repair_home(request: RepairRequest) -> tuple[Finding, ...]:
    """Clear what killed makers of runs left in the runs directory, and write its index anew."""
    if request.references:
        return ()
    try:
        leftovers = abandoned_staging(request.home) if request.dry_run else clear_staging(request.home)
    except StorageError as error:
        return (Finding(what=error.what, action=error.remedy, outcome="beyond repair"),)
    if not request.dry_run:
        _rebuild_index(request.home)
    return tuple(
        Finding(what=f"{path}: a run whose making was cut short", action="deleted", outcome="mended")
        for path in leftovers
    )


def _repaired(run: RunPaths, request: RepairRequest) -> RepairedRun:
    mending = Mending(run, dry_run=request.dry_run, force=request.force)
    if not run.directory.is_dir():
        advice = f"move it away: diffcli runs rm {run.directory.name}"
        mending.give_up(f"{run.directory} is no directory", advice)
        return mending.result()
    try:
        with _locked(run, dry_run=request.dry_run):
            mending.mend()
    except LockedError as error:
        return mending.passed_over(error)
    except (CorruptError, StorageError) as error:
        mending.give_up(error.what, error.remedy)
    return mending.result()


def _locked(run: RunPaths, *, dry_run: bool) -> AbstractContextManager[object]:
    """The run's lock, held; a dry run only looks whether it is free."""
    if not dry_run:
        return acquire_lock(run)
    holder = lock_holder(run)
    if holder is not None:
        raise LockedError(f"{run.directory.name} is in use by {holder}")
    return contextlib.nullcontext()


def _rebuild_index(home: Path) -> None:
    # where it cannot be written, lists do without it
    with contextlib.suppress(OSError, StorageError):
        index_of(home).unlink(missing_ok=True)
        durable.clear_temporaries(home, index_of(home).name)
        list_runs(home, limit=None, sizes=False)
