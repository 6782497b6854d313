"""Pins set and taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffcli.errors import MissingError
from diffcli.records.runs import Pin
from diffcli.registry import pins
from diffcli.registry.contents import step_directories
from diffcli.registry.paths import RunPaths
from diffcli.registry.reference import checkpoint_reference
from diffcli.registry.resolve import resolve
from diffcli.registry.run_record import RunHeading, read_heading


@dataclass(frozen=True, kw_only=True)
class _Target:
    """What is to be pinned: a run, or its checkpoint of a step."""

    paths: RunPaths
    heading: RunHeading
    step: int | None


def pin(home: Path, references: Sequence[str]) -> tuple[Pin, ...]:
    """Pin runs (`RUN`) and checkpoints (`RUN@STEP`), all of them or none.

    Raises MissingError when one is not there, CorruptError when a record cannot be read.
    """
    targets = _targets(home, references)
    for target in targets:
        _require_checkpoint(target)
    for target in targets:
        pins.pin(target.paths, target.heading, target.step)
        try:
            # its trainer may have read the pins, and deleted the checkpoint, just before
            _require_checkpoint(target)
        except MissingError:
            pins.unpin(target.paths, target.heading, target.step)
            raise
    return tuple(_pin(target) for target in targets)


def unpin(home: Path, references: Sequence[str]) -> tuple[Pin, ...]:
    """Take pins away; also those of checkpoints that are no longer there, and of what was not pinned."""
    targets = _targets(home, references)
    for target in targets:
        pins.unpin(target.paths, target.heading, target.step)
    return tuple(_pin(target) for target in targets)


def _targets(home: Path, references: Sequence[str]) -> tuple[_Target, ...]:
    found = []
    for text in references:
        reference = checkpoint_reference(text)
        paths = resolve(home, reference.run)
        found.append(_Target(paths=paths, heading=read_heading(paths), step=reference.step))
    return tuple(found)


def _require_checkpoint(target: _Target) -> None:
    if target.step is None:
        return
    steps = [entry.step for entry in step_directories(target.paths.checkpoints)]
    if target.step not in steps:
        raise MissingError(
            f"{target.paths.directory.name} has no checkpoint of step {target.step}",
            where=f"it has: {', '.join(map(str, steps)) or 'none'}",
        )


def _pin(target: _Target) -> Pin:
    return Pin(run_id=target.paths.directory.name, step=target.step)
