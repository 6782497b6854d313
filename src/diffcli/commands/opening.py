"""The run of one attempt: made or locked, cleared of what a kill left behind, and where to go on from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffcli import durable
from diffcli.commands.checkpoint_verdicts import damaged_name, is_damage, put_aside
from diffcli.commands.training_data import TrainingData, facts_of
from diffcli.commands.training_target import TrainingTarget
from diffcli.config.sections import RunConfig
from diffcli.errors import CorruptError, UsageError
from diffcli.records.runs import StoredState
from diffcli.registry.create import Run, create_run, open_run
from diffcli.registry.events import STARTED, read_events
from diffcli.registry.lock import RunLock, acquire_lock
from diffcli.registry.paths import RunPaths
from diffcli.registry.run_record import (
    UNKNOWN_DATASET,
    Attempt,
    DatasetFacts,
    ParentCheckpoint,
    SettingChange,
    known_dataset,
    known_validation,
    read_attempts,
    write_attempt,
)
from diffcli.registry.status import read_status
from diffcli.training import checkpoints
from diffcli.training.checkpoints import FoundCheckpoint
from diffcli.workers import Workers

# settings that a resume may change
_DECIDE_MEMORY = ("training.microbatch", "model.checkpoint_blocks")


@dataclass(frozen=True, kw_only=True)
class OpenedRun:
    """A run, the checkpoint and the attempt to go on from, if any, and whether nothing is left to do.

    origin: the other run's checkpoint that this one starts from, as long as it has none of its own;
    new_dataset, new_validation: what an imported run is trained on, and what a run measures itself on, from
    this attempt on.
    """

    run: Run
    found: FoundCheckpoint | None
    origin: FoundCheckpoint | None
    previous: Attempt | None
    complete: bool
    diverged: bool
    new_dataset: DatasetFacts | None
    new_validation: DatasetFacts | None

    @property
    def attempt_number(self) -> int:
        """The number of the attempt that begins."""
        return self.previous.number + 1 if self.previous else 1


@dataclass(frozen=True, kw_only=True)
class LockedRun:
    """An opened run and its lock, which belongs to the process that opened it."""

    opened: OpenedRun
    lock: RunLock


def open_to_train(
    target: TrainingTarget, data: TrainingData, attempt_of: Callable[[OpenedRun], Attempt]
) -> LockedRun:
    """Make the run, or lock the one to resume; the first process does it for all.

    attempt_of: the record of the attempt that begins, as far as it is known.

    Raises LockedError, CorruptError when there are checkpoints and none is good, MissingError when there is
    nothing to start from or to go back to, and UsageError when the run has done more steps than are asked
    for.
    """
    parent = _asked_for(target.parent, target.parent_step) if target.parent else None
    run = target.resumed or _new_run(target, data, parent)
    lock = acquire_lock(run.paths)
    try:
        _clear_leftovers(run.paths)
        _finish_rollback(run.paths)
        opened = _opened(target, data, run, parent)
        if opened.found is not None:
            _put_damaged_aside(run.paths.checkpoints, opened.found)
        if target.request.rollback is not None:
            # recorded first: who is interrupted from here on finishes it
            write_attempt(run.paths, attempt_of(opened))
            _abandon_what_came_after(target.request.rollback, opened.attempt_number, run.paths)
        return LockedRun(opened=opened, lock=lock)
    except BaseException:
        lock.release()
        raise


def _new_run(target: TrainingTarget, data: TrainingData, parent: FoundCheckpoint | None) -> Run:
    link = None
    if target.parent is not None and parent is not None:
        link = ParentCheckpoint(run_id=target.parent.id, step=parent.step)
    spec = target.new_run(facts_of(data.training), _validation(data), link)
    return create_run(target.request.runs_home, spec)


def _asked_for(run: Run, step: int | None) -> FoundCheckpoint:
    """The checkpoint of that step, or the newest good one."""
    directory = run.paths.checkpoints
    return checkpoints.newest_good(directory) if step is None else checkpoints.at_step(directory, step)


def _validation(data: TrainingData) -> DatasetFacts | None:
    return None if data.validation is None else facts_of(data.validation.dataset)


def _opened(
    target: TrainingTarget, data: TrainingData, run: Run, parent: FoundCheckpoint | None
) -> OpenedRun:
    steps = target.config.training.steps
    found = _to_go_on_from(target, run)
    if found is not None and found.step > steps:
        raise UsageError(
            f"training.steps is {steps}, but {run.id} has done {found.step}",
            remedy="ask for more, or leave it as it was",
        )
    attempts = read_attempts(run.paths)
    unknown = known_dataset(run.paths, run.record) == UNKNOWN_DATASET
    return OpenedRun(
        run=run,
        found=found,
        origin=parent or _recorded_origin(target, run) if found is None else None,
        previous=attempts[-1] if attempts else None,
        complete=found is not None and found.step == steps and _said_state(run.paths) == "completed",
        diverged=_said_state(run.paths) == "diverged",
        new_dataset=facts_of(data.training) if unknown else None,
        new_validation=_validation(data) if known_validation(run.paths, run.record) is None else None,
    )


def _to_go_on_from(target: TrainingTarget, run: Run) -> FoundCheckpoint | None:
    if target.request.rollback is not None:
        return _asked_for(run, target.request.rollback)
    return _asked_for(run, None) if checkpoints.steps_present(run.paths.checkpoints) else None


def _recorded_origin(target: TrainingTarget, run: Run) -> FoundCheckpoint | None:
    parent = run.record.parent
    if parent is None:
        return None
    return _asked_for(open_run(target.request.runs_home, parent.run_id), parent.step)


def _finish_rollback(run: RunPaths) -> None:
    """Move what came after the step that an attempt went back to, if it was killed before it could train."""
    attempts = read_attempts(run)
    if not attempts or not attempts[-1].rolled_back:
        return
    last = attempts[-1]
    begun = any(event.attempt == last.number and event.kind == STARTED for event in read_events(run.events))
    if not begun:
        _abandon_what_came_after(last.first_step, last.number, run)


def _put_damaged_aside(directory: Path, found: FoundCheckpoint) -> None:
    """Rename the newer checkpoints that are damaged, so that they never count among those that are kept."""
    newer = [step for step in checkpoints.steps_present(directory) if step > found.step]
    for step, error in zip(reversed(newer), found.rejected, strict=False):
        damaged = checkpoints.directory_of(directory, step)
        if is_damage(damaged, error):
            put_aside(damaged, damaged_name(damaged))


def _abandon_what_came_after(step: int, attempt_number: int, paths: RunPaths) -> None:
    """Take the later checkpoints and snapshots out of the way; they stay on disk."""
    place = paths.abandoned / f"{attempt_number:03d}"
    checkpoints.abandon_after(paths.checkpoints, step, place / paths.checkpoints.name)
    checkpoints.abandon_after(paths.ema_snapshots, step, place / paths.ema_snapshots.name)


def rounding_changes(before: Attempt, now: Attempt) -> tuple[str, ...]:
    """What differs between two attempts and decides the last bits, such as `processes 2 -> 4`."""
    facts = (
        ("processes", before.world_size, now.world_size),
        ("threads", before.threads, now.threads),
        ("device", before.device.partition(":")[0], now.device.partition(":")[0]),
        ("precision", before.precision, now.precision),
        ("torch", before.versions.torch, now.versions.torch),
        # of other processes the shares are others, and old records do not know it
        ("microbatch", *_comparable_microbatches(before, now)),
    )
    return tuple(f"{name} {then} -> {today}" for name, then, today in facts if then != today)


def _comparable_microbatches(before: Attempt, now: Attempt) -> tuple[int, int]:
    known = before.microbatch and now.microbatch and before.world_size == now.world_size
    return (before.microbatch, now.microbatch) if known else (0, 0)


def known_microbatch(opened: OpenedRun, attempt: Attempt, config: RunConfig, workers: Workers) -> int | None:
    """The images per forward pass of an attempt; None if it is still to be found out how many fit.

    What an earlier attempt found out in the same surroundings is taken again, as it decides the last bits.
    """
    choice, share = config.training.microbatch, len(workers.share(config.training.batch_size))
    if choice != "auto":
        return min(choice or share, share)
    # decided once for all, because what is to be found out is found out together
    return workers.first_decides(lambda: _found_before(opened.previous, attempt))


def _found_before(before: Attempt | None, now: Attempt) -> int | None:
    if before is None or not before.microbatch or rounding_changes(before, now):
        return None
    return before.microbatch if _about_memory(before) == _about_memory(now) else None


def _about_memory(attempt: Attempt) -> tuple[SettingChange, ...]:
    return tuple(change for change in attempt.changes if change.key in _DECIDE_MEMORY)


def _said_state(run: RunPaths) -> StoredState | None:
    with contextlib.suppress(CorruptError):
        return read_status(run).state
    return None


def _clear_leftovers(run: RunPaths) -> None:
    checkpoints.clear_leftovers(run.checkpoints)
    checkpoints.clear_leftovers(run.ema_snapshots)
    durable.clear_temporaries(run.directory, run.status.name)
    durable.clear_temporaries(run.attempts)
