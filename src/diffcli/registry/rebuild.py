"""A status as far as the rest of a run tells it, in place of one that cannot be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from diffcli.records.runs import StoredState
from diffcli.registry.events import read_events
from diffcli.registry.metrics import read_metrics
from diffcli.registry.paths import RunPaths
from diffcli.registry.process import ProcessIdentity, this_process
from diffcli.registry.run_record import Attempt
from diffcli.registry.status import RunStatus, new_status

UNKNOWN_END = "how it ended is not known: status.json could not be read"
_STARTED = "started"
# the kinds of events that end an attempt
_ENDS: dict[str, StoredState] = {
    "completed": "completed",
    "stopped": "stopped",
    "failed": "failed",
    "diverged": "diverged",
}


@dataclass(frozen=True, kw_only=True)
class _End:
    state: StoredState
    reason: str


def rebuilt_status(
    run: RunPaths,
    attempts: Sequence[Attempt],
    *,
    total_steps: int,
    batch_size: int,
    checkpoint_step: int,
) -> RunStatus:
    """The status by the last event, the last row of metrics, and the newest checkpoint (0: there is none).

    The state is `failed` when no event tells how the last attempt ended. StorageError when a log cannot be
    read.
    """
    end = _end_of(run, attempts)
    rows = read_metrics(run.metrics).rows
    step = max(checkpoint_step, rows[-1].row.step if rows else 0)
    return dataclasses.replace(
        new_status(_last_process(attempts), total_steps),
        state=end.state,
        reason=end.reason,
        step=step,
        images_seen=step * batch_size,
        world_size=attempts[-1].world_size if attempts else 1,
        exit_code=0 if end.state == "completed" else None,
    )


def _end_of(run: RunPaths, attempts: Sequence[Attempt]) -> _End:
    for event in reversed(read_events(run.events)):
        if event.kind in _ENDS:
            return _End(state=_ENDS[event.kind], reason=event.message)
        if event.kind == _STARTED:
            return _End(state="failed", reason=UNKNOWN_END)
    if attempts:
        return _End(state="failed", reason=UNKNOWN_END)
    return _End(state="created", reason="")


def _last_process(attempts: Sequence[Attempt]) -> ProcessIdentity:
    if not attempts:
        return this_process()
    # a state at rest asks neither for the boot nor for the start of its process
    return ProcessIdentity(host=attempts[-1].host, boot="", pid=attempts[-1].pid, started="")
