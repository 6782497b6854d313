"""Disk space of runs that are not in training: what can go, and its deletion."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffcli import durable
from diffcli.commands.checkpoint_verdicts import verdict_on
from diffcli.commands.run_config import current_config
from diffcli.errors import CorruptError, LockedError
from diffcli.records.run_pruning import PrunedKind, Pruning, Superfluous
from diffcli.registry.contents import StepDirectory, abandoned_of, step_directories
from diffcli.registry.create import Run
from diffcli.registry.lock import acquire_lock
from diffcli.registry.paths import RunPaths
from diffcli.registry.run_record import pinned_steps, read_run_record
from diffcli.registry.size import size_on_disk
from diffcli.registry.state import observe, require_idle
from diffcli.registry.status import read_status


@dataclass(frozen=True, kw_only=True)
class PruningRules:
    """What stays of a run, besides everything pinned.

    keep_last: so many of the newest good checkpoints, at least 1. keep_every: those at multiples of so many
    steps; 0 for none, None for the run's own training.keep_every. ema_snapshots_every: of the snapshots the
    newest good one, and those at multiples of so many steps; None for all. abandoned: whether what rollbacks
    set aside goes.
    """

    keep_last: int
    keep_every: int | None
    ema_snapshots_every: int | None
    abandoned: bool


@contextlib.contextmanager
def planned_pruning(runs: Sequence[RunPaths], rules: PruningRules) -> Iterator[Pruning]:
    """What can go, while the runs are locked so that it stays true.

    Raises LockedError when one is in use, CorruptError when it cannot be told what must stay.
    """
    with contextlib.ExitStack() as locks:
        for run in runs:
            require_idle(run)
            locks.enter_context(acquire_lock(run))
            _require_not_silent(run)
        yield Pruning(superfluous=tuple(entry for run in runs for entry in _superfluous(run, rules)))


def delete(pruning: Pruning) -> None:
    """Delete what was planned; interrupted, it leaves nothing that could be taken for a checkpoint."""
    for entry in pruning.superfluous:
        removing = entry.directory.with_name(f".removing-{entry.directory.name}-{os.getpid()}")
        with durable.storage_errors(entry.directory):
            entry.directory.rename(removing)
        durable.remove_tree(removing)
        if entry.kind.startswith("abandoned"):
            # with the last one of an attempt go the directories around it
            with contextlib.suppress(OSError):
                entry.directory.parent.rmdir()
                entry.directory.parent.parent.rmdir()


def _require_not_silent(run: RunPaths) -> None:
    """Raise LockedError when the lock, which is the caller's, may not have reached the run's process."""
    status = read_status(run)
    if observe(run, status, holding_lock=True).state == "stale":
        name, process = run.directory.name, f"{status.process.pid}@{status.process.host}"
        raise LockedError(
            f"{name} may be in use by {process}, which gives no sign of life",
            remedy=f"if it is gone for sure: diffcli runs repair {name} --force",
        )


def _superfluous(run: RunPaths, rules: PruningRules) -> Iterator[Superfluous]:
    record = read_run_record(run)
    keep_every = rules.keep_every
    if keep_every is None:
        keep_every = current_config(Run(id=record.id, paths=run, record=record)).training.keep_every
    pinned = pinned_steps(run)
    for entry in _before_the_newest(step_directories(run.checkpoints), rules.keep_last):
        if entry.step not in pinned and not _is_multiple(entry.step, keep_every):
            yield _entry(run, "checkpoint", entry.step, entry.directory)
    if rules.ema_snapshots_every is not None:
        for entry in _before_the_newest(step_directories(run.ema_snapshots), 1):
            if not _is_multiple(entry.step, rules.ema_snapshots_every):
                yield _entry(run, "EMA snapshot", entry.step, entry.directory)
    if rules.abandoned:
        for part in abandoned_of(run):
            if part.kind == "EMA snapshot":
                yield _entry(run, "abandoned EMA snapshot", part.step, part.directory)
            elif part.step not in pinned:
                yield _entry(run, "abandoned checkpoint", part.step, part.directory)


def _before_the_newest(entries: Sequence[StepDirectory], count: int) -> Sequence[StepDirectory]:
    """The entries before the newest `count` good ones; damaged newer ones neither count nor go."""
    good = 0
    for position in reversed(range(len(entries))):
        good += verdict_on(entries[position]).soundness == "good"
        if good == count:
            return entries[:position]
    if entries and not good:
        parent = entries[0].directory.parent
        raise CorruptError(
            f"none of the {len(entries)} in {parent} is good, so all of them stay",
            remedy=f"see what is wrong: diffcli runs repair {parent.parent.name} --dry-run",
        )
    return ()


def _is_multiple(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _entry(run: RunPaths, kind: PrunedKind, step: int, directory: Path) -> Superfluous:
    return Superfluous(
        run_id=run.directory.name,
        kind=kind,
        step=step,
        directory=directory,
        size_bytes=size_on_disk(directory),
    )
