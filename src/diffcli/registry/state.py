"""What state a run is in now: a process that was killed could not say so. Nothing is written here."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from diffcli.errors import CorruptError, LockedError
from diffcli.records.runs import RunState
from diffcli.registry.lock import lock_holder
from diffcli.registry.paths import RunPaths
from diffcli.registry.process import ProcessIdentity, boot_id, host_name, living_process
from diffcli.registry.status import RunStatus, read_status

# a trainer beats at least every minute
STALE_AFTER_SECONDS = 300.0
ACTIVE = ("running", "stopping")


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The state of a run, and why when that is not obvious."""

    state: RunState
    reason: str


def observe(run: RunPaths, status: RunStatus, *, holding_lock: bool = False) -> Observation:
    """The state as it is now.

    crashed: the process is gone and did not say how it ended. stale: there is no sign of life, nor is it sure
    that the process is gone. holding_lock: the lock is the caller's, so no trainer of this machine has it.
    """
    if status.state not in ACTIVE:
        return Observation(state=status.state, reason=status.reason)
    locked = not holding_lock and lock_holder(run) is not None
    why_gone = None if locked else _why_gone(status.process)
    if why_gone is None:
        return _observe_unsure(run, status, locked=locked)
    # it may have ended well between our reading of the status and our look at the lock
    latest = read_status(run)
    if latest != status:
        return observe(run, latest, holding_lock=holding_lock)
    return Observation(state="crashed", reason=why_gone)


def is_elsewhere(status: RunStatus) -> bool:
    """Whether the process of a status was on another machine, where neither locks nor signals reach it."""
    return not _on_this_machine(status.process)


def require_idle(run: RunPaths) -> None:
    """Raise LockedError when a heartbeat tells that the run is in use, also where locks do not reach."""
    with contextlib.suppress(CorruptError):
        status = read_status(run)
        if observe(run, status).state in ACTIVE:
            raise LockedError(
                f"{run.directory.name} is in use by {status.process.pid}@{status.process.host}",
                remedy="stop that process first",
            )


def _observe_unsure(run: RunPaths, status: RunStatus, *, locked: bool) -> Observation:
    if _on_this_machine(status.process):
        return _observe_living(status)
    if locked:
        return Observation(state=status.state, reason=status.reason)
    return _observe_elsewhere(run, status)


def _on_this_machine(process: ProcessIdentity) -> bool:
    """Containers of one machine differ in their host name and share its boot, and so its locks."""
    if process.boot and boot_id():
        return process.boot == boot_id()
    return process.host == host_name()


def _why_gone(process: ProcessIdentity) -> str | None:
    """Why the process that held a free lock is surely gone; None when that is not sure."""
    if not _on_this_machine(process):
        return f"{process.host} was restarted since" if process.host == host_name() else None
    living = living_process(process.pid)
    if living is None:
        return f"process {process.pid} is gone"
    if living.started != process.started:
        return f"process {process.pid} is another one by now"
    return None


def _observe_living(status: RunStatus) -> Observation:
    living = living_process(status.process.pid)
    if living is None or living.started != status.process.started:
        # another process has the lock: it resumes the run and is about to say so
        return Observation(state=status.state, reason=status.reason)
    if living.suspended:
        return Observation(state="stale", reason=f"process {status.process.pid} is suspended")
    # the monotonic clock is one for all processes of a machine, and setting the time does not move it
    return _by_silence(status, time.monotonic() - status.heartbeat.host_seconds)


def _observe_elsewhere(run: RunPaths, status: RunStatus) -> Observation:
    """Without a lock or a process to look at: the younger of two ages, as either clock may be wrong."""
    now = time.time()
    ages = [abs(now - status.updated_at.timestamp())]
    with contextlib.suppress(FileNotFoundError):
        ages.append(abs(now - run.status.stat().st_mtime))
    return _by_silence(status, min(ages))


def _by_silence(status: RunStatus, silent_seconds: float) -> Observation:
    if silent_seconds <= STALE_AFTER_SECONDS:
        return Observation(state=status.state, reason=status.reason)
    return Observation(
        state="stale", reason=f"no heartbeat from {status.process.host} for {silent_seconds / 60:.0f} minutes"
    )
