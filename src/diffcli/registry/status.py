"""How far a run is, as the process that trains it says."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from diffcli.records.runs import StoredState
from diffcli.registry.json_records import read_record, write_record
from diffcli.registry.paths import RunPaths
from diffcli.registry.process import ProcessIdentity

STATUS_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """Counts the writes of a status; `host_seconds` is the host's monotonic clock, which nobody sets."""

    counter: int
    host_seconds: float


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """status.json; `process` is rank 0, which holds the lock; `exit_code` is None while it runs."""

    state: StoredState
    step: int
    total_steps: int
    images_seen: int
    heartbeat: Heartbeat
    process: ProcessIdentity
    world_size: int
    exit_code: int | None
    reason: str
    updated_at: datetime


def new_status(process: ProcessIdentity, total_steps: int) -> RunStatus:
    """The status of a run that was not started yet."""
    return RunStatus(
        state="created",
        step=0,
        total_steps=total_steps,
        images_seen=0,
        heartbeat=Heartbeat(counter=0, host_seconds=time.monotonic()),
        process=process,
        world_size=1,
        exit_code=None,
        reason="",
        updated_at=datetime.now(UTC),
    )


def write_status(run: RunPaths, status: RunStatus) -> RunStatus:
    """Replace status.json by `status` with its next heartbeat, and return what was written.

    Only the holder of the lock may. StorageError when it cannot be written.
    """
    beating = dataclasses.replace(
        status,
        heartbeat=Heartbeat(counter=status.heartbeat.counter + 1, host_seconds=time.monotonic()),
        updated_at=datetime.now(UTC),
    )
    write_record(run.status, beating, schema=STATUS_SCHEMA)
    return beating


def read_status(run: RunPaths) -> RunStatus:
    """What status.json says; see `state.observe` for what is true now."""
    return read_record(RunStatus, run.status, schema=STATUS_SCHEMA)
