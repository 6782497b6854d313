"""The end of a run whose first rank was killed, told in its place by the launcher."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from diffcli.errors import CorruptError, DiffcliError, MissingError, StorageError
from diffcli.records.runs import StoredState
from diffcli.registry.events import Event, append_event
from diffcli.registry.ids import run_id, run_numbers
from diffcli.registry.lock import acquire_lock
from diffcli.registry.paths import RunPaths
from diffcli.registry.process import ProcessIdentity
from diffcli.registry.resolve import resolve
from diffcli.registry.run_record import attempt_numbers
from diffcli.registry.status import read_status, write_status


def find_run(home: Path, first_rank: ProcessIdentity, *, resumed: str | None) -> RunPaths | None:
    """The run that a process trained last, by its status; None when it never came to one.

    resumed: what the user called the run, if it is an old one.
    """
    for run in _candidates(home, resumed):
        with contextlib.suppress(CorruptError, MissingError, StorageError):
            if read_status(run).process == first_rank:
                return run
    return None


def record_end(run: RunPaths, first_rank: ProcessIdentity, *, reason: str, exit_code: int) -> None:
    """Note how the training ended, unless its first rank has said so, or the run is another's by now."""
    # the training has failed already, and its run may be locked by who goes on with it
    with contextlib.suppress(DiffcliError), acquire_lock(run):
        status = read_status(run)
        if status.process != first_rank:
            return
        state: StoredState = "stopped" if exit_code > 128 else "failed"
        told = status.exit_code is not None
        if not told:
            write_status(run, dataclasses.replace(status, state=state, exit_code=exit_code, reason=reason))
        append_event(
            run.events,
            Event(
                at=datetime.now(UTC),
                attempt=max(attempt_numbers(run), default=1),
                step=status.step,
                kind="notice" if told else state,
                message=reason,
            ),
        )


def _candidates(home: Path, resumed: str | None) -> Iterator[RunPaths]:
    """First what the user called it, which `latest` may not mean any more; then all, newest first."""
    if resumed is not None:
        with contextlib.suppress(DiffcliError):
            yield resolve(home, resumed)
    yield from (RunPaths(home / run_id(number)) for number in run_numbers(home))
