"""The run of one attempt: made or locked, cleared of what a kill left behind, and where to go on from."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from diffcli import durable
from diffcli.commands.training_target import TrainingTarget
from diffcli.data.dataset import Dataset
from diffcli.errors import CorruptError, UsageError
from diffcli.registry.create import Run, create_run
from diffcli.registry.lock import RunLock, acquire_lock
from diffcli.registry.paths import RunPaths
from diffcli.registry.run_record import Attempt, read_attempts
from diffcli.registry.status import read_status
from diffcli.training import checkpoints
from diffcli.training.checkpoints import FoundCheckpoint


@dataclass(frozen=True, kw_only=True)
class OpenedRun:
    """A run, the checkpoint and the attempt to go on from, if any, and whether nothing is left to do."""

    run: Run
    found: FoundCheckpoint | None
    previous: Attempt | None
    complete: bool

    @property
    def attempt_number(self) -> int:
        """The number of the attempt that begins."""
        return self.previous.number + 1 if self.previous else 1


@dataclass(frozen=True, kw_only=True)
class LockedRun:
    """An opened run and its lock, which belongs to the process that opened it."""

    opened: OpenedRun
    lock: RunLock


def open_to_train(target: TrainingTarget, dataset: Dataset) -> LockedRun:
    """Make the run, or lock the one to resume; the first process does it for all.

    Raises LockedError, CorruptError when there are checkpoints and none is good, and UsageError when the run
    has done more steps than are asked for.
    """
    run = target.resumed or create_run(target.request.runs_home, target.new_run(dataset))
    lock = acquire_lock(run.paths)
    try:
        _clear_leftovers(run.paths)
        return LockedRun(opened=_opened(run, steps=target.config.training.steps), lock=lock)
    except BaseException:
        lock.release()
        raise


def _opened(run: Run, *, steps: int) -> OpenedRun:
    directory = run.paths.checkpoints
    found = checkpoints.newest_good(directory) if checkpoints.steps_present(directory) else None
    if found is not None and found.step > steps:
        raise UsageError(
            f"training.steps is {steps}, but {run.id} has done {found.step}",
            remedy="ask for more, or leave it as it was",
        )
    attempts = read_attempts(run.paths)
    return OpenedRun(
        run=run,
        found=found,
        previous=attempts[-1] if attempts else None,
        complete=found is not None and found.step == steps and _is_said_to_be_complete(run.paths),
    )


def rounding_changes(before: Attempt, now: Attempt) -> tuple[str, ...]:
    """What differs between two attempts and decides the last bits, such as `processes 2 -> 4`."""
    facts = (
        ("processes", before.world_size, now.world_size),
        ("threads", before.threads, now.threads),
        ("device", before.device.partition(":")[0], now.device.partition(":")[0]),
        ("precision", before.precision, now.precision),
        ("torch", before.versions.torch, now.versions.torch),
    )
    return tuple(f"{name} {then} -> {today}" for name, then, today in facts if then != today)


def _is_said_to_be_complete(run: RunPaths) -> bool:
    with contextlib.suppress(CorruptError):
        return read_status(run).state == "completed"
    return False


def _clear_leftovers(run: RunPaths) -> None:
    checkpoints.clear_leftovers(run.checkpoints)
    durable.clear_temporaries(run.directory, run.status.name)
    durable.clear_temporaries(run.attempts)
