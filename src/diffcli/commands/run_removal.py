"""Runs into the trash, out of it again, and away for good."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffcli.records.runs import RemovedRuns, RestoredRun, Trash
from diffcli.registry import trash
from diffcli.registry.paths import RunPaths
from diffcli.registry.resolve import resolve


def find_runs(home: Path, references: Sequence[str]) -> tuple[RunPaths, ...]:
    """The runs that are meant, each once, readable or not; MissingError when one is not there."""
    found = {run.directory: run for run in (resolve(home, reference) for reference in references)}
    return tuple(found.values())


def remove_runs(home: Path, runs: Sequence[RunPaths]) -> RemovedRuns:
    """Move runs to the trash; LockedError, and none is moved, when one is in use."""
    trash.move_to_trash(home, runs)
    return RemovedRuns(home=home, ids=tuple(run.directory.name for run in runs))


def restore_run(home: Path, reference: str) -> RestoredRun:
    """Bring a run back from the trash; MissingError when it is not there."""
    restored = trash.restore(home, reference)
    return RestoredRun(id=reference, directory=restored.directory)


def inspect_trash(home: Path) -> Trash:
    """What `purge_trash` would delete."""
    return trash.trash_contents(home)


def purge_trash(home: Path) -> Trash:
    """Delete all runs in the trash for good, and say which they were."""
    return trash.purge(home)
