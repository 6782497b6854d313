"""Pins: runs that nothing removes, and checkpoints that outlive retention; set at any time."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Callable, Iterator

from diffcli import durable
from diffcli.errors import CorruptError, StorageError, UsageError
from diffcli.registry.paths import RunPaths
from diffcli.registry.run_record import (
    Annotations,
    RunHeading,
    RunRecord,
    read_annotations,
    stored_annotations,
    write_annotations,
)


def change_annotations(
    run: RunPaths, heading: RunHeading | RunRecord, change: Callable[[Annotations], Annotations]
) -> None:
    """Replace annotations.json by what `change` makes of it; none of several at once is lost.

    Raises CorruptError when it cannot be read, StorageError when it cannot be written.
    """
    with _one_at_a_time(run):
        before = read_annotations(run, heading)
        after = change(before)
        if after != before:
            write_annotations(run, after)


def pin(run: RunPaths, heading: RunHeading | RunRecord, step: int | None) -> None:
    """Pin the checkpoint of a step, or the run itself; twice does no harm."""

    def pinned(annotations: Annotations) -> Annotations:
        if step is None:
            return dataclasses.replace(annotations, pinned=True)
        steps = {*annotations.pinned_steps, step}
        return dataclasses.replace(annotations, pinned_steps=tuple(sorted(steps)))

    change_annotations(run, heading, pinned)


def unpin(run: RunPaths, heading: RunHeading | RunRecord, step: int | None) -> None:
    """Take a pin away; nothing happens when there is none."""

    def unpinned(annotations: Annotations) -> Annotations:
        if step is None:
            return dataclasses.replace(annotations, pinned=False)
        steps = tuple(other for other in annotations.pinned_steps if other != step)
        return dataclasses.replace(annotations, pinned_steps=steps)

    change_annotations(run, heading, unpinned)


def require_unpinned(run: RunPaths) -> None:
    """Raise UsageError for a run with any pin; one whose pins cannot be read may be moved away."""
    annotations = None
    with contextlib.suppress(CorruptError, StorageError):
        annotations = stored_annotations(run)
    if annotations is None:
        return
    name = run.directory.name
    pins = [name] if annotations.pinned else []
    pins += [f"{name}@{step}" for step in annotations.pinned_steps]
    if pins:
        raise UsageError(
            f"{name} is pinned" if annotations.pinned else f"{name} has pinned checkpoints",
            remedy=f"first: diffcli runs unpin {' '.join(pins)}",
        )


@contextlib.contextmanager
def _one_at_a_time(run: RunPaths) -> Iterator[None]:
    """The run's own lock belongs to its trainer, so this one is on the directory."""
    with durable.storage_errors(run.directory):
        descriptor = os.open(run.directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # not every file system has such locks; two writers at once are rare
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
