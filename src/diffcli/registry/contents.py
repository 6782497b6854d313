"""What a run has made so far, as found in its directory."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from diffcli.records.run_details import (
    AbandonedPart,
    CheckpointSummary,
    DamagedCheckpoint,
    PartKind,
    SampleSummary,
    SnapshotSummary,
)
from diffcli.registry.ids import entry_names
from diffcli.registry.paths import RunPaths
from diffcli.registry.size import size_on_disk

_STEP = re.compile(r"step-([0-9]+)")
_ATTEMPT = re.compile(r"[0-9]{3,}")
_ABANDONED_PARTS: dict[PartKind, str] = {
    "checkpoint": RunPaths(Path()).checkpoints.name,
    "EMA snapshot": RunPaths(Path()).ema_snapshots.name,
}
_MANIFEST = "manifest.json"
# `runs repair` renames what it finds damaged
DAMAGED_PREFIX = "damaged-"


@dataclass(frozen=True, kw_only=True)
class StepDirectory:
    """A directory `step-000500`: a checkpoint or an EMA snapshot."""

    step: int
    directory: Path


def step_directories(parent: Path) -> tuple[StepDirectory, ...]:
    """The checkpoints or EMA snapshots in a directory, oldest first; none when it is not there."""
    found = (
        StepDirectory(step=int(match.group(1)), directory=parent / name)
        for name in entry_names(parent)
        if (match := _STEP.fullmatch(name))
    )
    return tuple(sorted(found, key=lambda entry: entry.step))


def checkpoints_of(run: RunPaths, *, pinned: Collection[int] = ()) -> tuple[CheckpointSummary, ...]:
    """The checkpoints by step; their contents are not read."""
    return tuple(
        CheckpointSummary(
            step=entry.step,
            directory=entry.directory,
            size_bytes=size_on_disk(entry.directory),
            complete=(entry.directory / _MANIFEST).is_file(),
            pinned=entry.step in pinned,
        )
        for entry in step_directories(run.checkpoints)
    )


def damaged_of(run: RunPaths) -> tuple[DamagedCheckpoint, ...]:
    """What `runs repair` set aside, by name."""
    return tuple(
        DamagedCheckpoint(directory=parent / name, size_bytes=size_on_disk(parent / name))
        for parent in (run.checkpoints, run.ema_snapshots)
        for name in sorted(entry_names(parent))
        if name.startswith(DAMAGED_PREFIX)
    )


def snapshots_of(run: RunPaths) -> tuple[SnapshotSummary, ...]:
    """The snapshots of the power-function averages by step."""
    return tuple(
        SnapshotSummary(step=entry.step, directory=entry.directory, size_bytes=size_on_disk(entry.directory))
        for entry in step_directories(run.ema_snapshots)
    )


def abandoned_of(run: RunPaths) -> tuple[AbandonedPart, ...]:
    """The checkpoints and EMA snapshots that rollbacks set aside, by attempt and step."""
    return tuple(
        AbandonedPart(
            attempt=int(place.name),
            kind=kind,
            step=entry.step,
            directory=entry.directory,
            size_bytes=size_on_disk(entry.directory),
        )
        for place in abandoned_places(run)
        for kind, part in _ABANDONED_PARTS.items()
        for entry in step_directories(place / part)
    )


def abandoned_places(run: RunPaths) -> tuple[Path, ...]:
    """The directories, one for each attempt that began with a rollback, of what it set aside."""
    names = (name for name in entry_names(run.abandoned) if _ATTEMPT.fullmatch(name))
    return tuple(run.abandoned / name for name in sorted(names, key=int))


def samples_of(run: RunPaths) -> tuple[SampleSummary, ...]:
    """The sets of samples by name."""
    return tuple(
        SampleSummary(
            name=name,
            archive=_archive_in(run.samples / name),
            size_bytes=size_on_disk(run.samples / name),
        )
        for name in sorted(entry_names(run.samples))
        if not name.startswith(".") and (run.samples / name).is_dir()
    )


def _archive_in(directory: Path) -> Path | None:
    archives = sorted(name for name in entry_names(directory) if name.endswith(".npz"))
    return directory / archives[0] if archives else None
