"""Runs as commands return them and consoles draw them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

# what a training process writes
StoredState = Literal["created", "running", "stopping", "completed", "stopped", "failed", "diverged"]
# what a reader works out: crashed, stale and unreadable are never written
RunState = StoredState | Literal["crashed", "stale", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One line of a list of runs; what cannot be read is None, and `reason` says why.

    `loss` is the last one logged; `pinned` is of the run itself, `pinned_steps` are its pinned checkpoints;
    `size_bytes` is None unless it was asked for.
    """

    id: str
    name: str | None
    preset: str | None
    state: RunState
    reason: str
    step: int | None
    total_steps: int | None
    loss: float | None
    created_at: datetime | None
    age_seconds: float | None
    pinned: bool
    pinned_steps: tuple[int, ...]
    size_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class RunListing:
    """The newest runs of a runs directory, newest first, out of `total_runs`."""

    home: Path
    total_runs: int
    runs: tuple[RunRow, ...]


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A run, or its checkpoint of a step, that was pinned or unpinned."""

    run_id: str
    step: int | None


@dataclass(frozen=True, kw_only=True)
class RemovedRuns:
    """Runs that went to the trash."""

    home: Path
    ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RestoredRun:
    """A run that came back from the trash."""

    id: str
    directory: Path


@dataclass(frozen=True, kw_only=True)
class Trash:
    """What a trash holds, or what was deleted from it for good."""

    home: Path
    ids: tuple[str, ...]
    size_bytes: int
