"""What the first process of a training writes into its run: status, attempts, metrics, events, log."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import traceback
from collections import deque
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

from diffcli.errors import DiffcliError, DivergedError, InterruptedRunError, StorageError
from diffcli.records.runs import StoredState
from diffcli.records.training import MetricRow
from diffcli.registry.create import Run
from diffcli.registry.events import STARTED, Event, append_event
from diffcli.registry.lock import RunLock
from diffcli.registry.metrics import LoggedRow, append_metrics
from diffcli.registry.process import this_process
from diffcli.registry.run_record import Attempt, write_attempt
from diffcli.registry.status import RunStatus, new_status, write_status

# readers take a run for stale after some minutes without one
_HEARTBEAT_SECONDS = 10.0
_BUG_EXIT_CODE = 70


class Journal(Protocol):
    """Keeps a run's records while it trains; a context that notes how the training ended."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Note the end."""

    def begin(self, attempt: Attempt) -> None:
        """Record the attempt, once all of it is known."""

    def at_step(self, step: int, images_seen: int) -> None:
        """Remember how far the run is."""

    def log_metrics(self, row: MetricRow) -> None:
        """Append a row of metrics."""

    def note(self, kind: str, message: str, *, step: int | None = None) -> None:
        """Append an event, of this step if it is not the last one done."""

    def stopping(self) -> None:
        """Note that a stop was asked for; may be called from another thread."""

    def abandoned(self, reason: str, exit_code: int) -> None:
        """Note, as the process is left in a hurry, that it was stopped; may be called from another thread."""


class SilentJournal:
    """The journal of all processes but the first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def begin(self, attempt: Attempt) -> None:
        """Nothing."""

    def at_step(self, step: int, images_seen: int) -> None:
        """Nothing."""

    def log_metrics(self, row: MetricRow) -> None:
        """Nothing."""

    def note(self, kind: str, message: str, *, step: int | None = None) -> None:
        """Nothing."""

    def stopping(self) -> None:
        """Nothing."""

    def abandoned(self, reason: str, exit_code: int) -> None:
        """Nothing."""


class RunJournal:
    """The journal of the first process, which holds the run's lock and gives its signs of life."""

    def __init__(self, run: Run, lock: RunLock, attempt: Attempt, *, total_steps: int) -> None:
        self._paths = run.paths
        self._lock = lock
        self._attempt = attempt
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._status: RunStatus = dataclasses.replace(
            new_status(this_process(), total_steps),
            state="running",
            step=attempt.first_step,
            world_size=attempt.world_size,
        )
        self._progress = (attempt.first_step, 0)
        # what a full disk did not take yet
        self._unwritten_rows: deque[LoggedRow] = deque()
        self._unwritten_events: deque[Event] = deque()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._write()
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._heart.join()
        try:
            if error is None:
                self._write_rows()
                self._end("completed", exit_code=0, reason="")
            else:
                self._end_with(error)
        finally:
            self._lock.release()

    def begin(self, attempt: Attempt) -> None:
        """Write the record of the attempt, once all of it is known."""
        write_attempt(self._paths, attempt)
        self.note(STARTED, f"attempt {attempt.number} from step {attempt.first_step}")

    def at_step(self, step: int, images_seen: int) -> None:
        """Remember how far the run is; the next heartbeat writes it."""
        # not under the lock, so that a step never waits for the disk on which the heart is writing
        self._progress = (step, images_seen)

    def log_metrics(self, row: MetricRow) -> None:
        """Append a row to metrics.jsonl; one that does not fit is written with the next, or at the end."""
        self._unwritten_rows.append(LoggedRow(attempt=self._attempt.number, row=row))
        with contextlib.suppress(StorageError):
            self._write_rows()

    def note(self, kind: str, message: str, *, step: int | None = None) -> None:
        """Append a line to events.jsonl; one that does not fit is written with the next, or at the end."""
        self._unwritten_events.append(
            Event(
                at=datetime.now(UTC),
                attempt=self._attempt.number,
                step=self._progress[0] if step is None else step,
                kind=kind,
                message=message,
            )
        )
        with contextlib.suppress(StorageError):
            self._write_events()

    def _write_rows(self) -> None:
        while self._unwritten_rows:
            append_metrics(self._paths.metrics, self._unwritten_rows[0])
            self._unwritten_rows.popleft()

    def _write_events(self) -> None:
        while self._unwritten_events:
            append_event(self._paths.events, self._unwritten_events[0])
            self._unwritten_events.popleft()

    def stopping(self) -> None:
        """Let readers see that the run is about to stop."""
        self._write(state="stopping", reason="a stop was asked for")

    def abandoned(self, reason: str, exit_code: int) -> None:
        """Say how the run ended; its last checkpoint is untouched."""
        self._write(state="stopped", reason=reason, exit_code=exit_code)

    def _end_with(self, error: BaseException) -> None:
        """Record a failure; a disk that refuses even that must not hide it."""
        with contextlib.suppress(StorageError):
            self._write_rows()
        with contextlib.suppress(StorageError):
            if isinstance(error, InterruptedRunError):
                self._end("stopped", exit_code=error.exit_code, reason=error.what)
            elif isinstance(error, DivergedError):
                self._end("diverged", exit_code=error.exit_code, reason=error.what, step=error.step)
            elif isinstance(error, DiffcliError):
                self._end("failed", exit_code=error.exit_code, reason=error.what)
            else:
                self._log_traceback(error)
                self._end("failed", exit_code=_BUG_EXIT_CODE, reason=f"{type(error).__name__}: {error}")

    def _end(self, state: StoredState, *, exit_code: int, reason: str, step: int | None = None) -> None:
        self._write(state=state, reason=reason, exit_code=exit_code)
        self.note(state, reason, step=step)

    def _log_traceback(self, error: BaseException) -> None:
        with contextlib.suppress(OSError), self._paths.log.open("a") as log:
            log.write("".join(traceback.format_exception(error)))

    def _write(
        self, *, state: StoredState | None = None, reason: str = "", exit_code: int | None = None
    ) -> None:
        with self._writing:
            if self._status.exit_code is not None:
                # the last word is said; a signal's thread, or the heart, may come late
                return
            if state is not None:
                self._status = dataclasses.replace(
                    self._status, state=state, reason=reason, exit_code=exit_code
                )
            step, images_seen = self._progress
            self._status = write_status(
                self._paths, dataclasses.replace(self._status, step=step, images_seen=images_seen)
            )

    def _beat(self) -> None:
        while not self._ended.wait(_HEARTBEAT_SECONDS):
            with contextlib.suppress(StorageError):  # the next one may fit again
                self._write()
