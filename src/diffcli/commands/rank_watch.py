"""Watching over the ranks of a launch until the last of them has ended."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Self

from diffcli.commands.launched_rank import STOP_SIGNALS

# from the failure of one rank to SIGTERM for those that did not notice, and from that to SIGKILL
_GRACE_SECONDS = 30.0
# a person who asked twice waits two seconds at most
_ABANDON_SECONDS = 1.5


@dataclass(frozen=True, kw_only=True)
class RankEnd:
    """How a rank ended; `signal_number` is 0 unless it was killed.

    forced: the launcher made it end, because it had not done so by itself after another one.
    """

    rank: int
    pid: int
    exit_code: int
    signal_number: int
    forced: bool

    def __str__(self) -> str:
        who = f"rank {self.rank} (process {self.pid})"
        if not self.signal_number:
            return f"{who} ended with exit code {self.exit_code}"
        with contextlib.suppress(ValueError):
            name = signal.Signals(self.signal_number).name
            return f"{who} was killed by signal {self.signal_number} ({name})"
        return f"{who} was killed by signal {self.signal_number}"


class Signals:
    """The stop signals, and the news of ended ranks, that reach this process while it is in the block.

    Use from the main thread only.
    """

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._previous_descriptor = signal.set_wakeup_fd(self._writer.fileno())
        self._previous = {
            number: signal.signal(number, self._ignore) for number in (*STOP_SIGNALS, signal.SIGCHLD)
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_descriptor)
        self._writer.close()
        self._reader.close()

    def next(self, seconds: float | None) -> int | None:
        """The next signal's number; None when none comes within so many seconds (None: no limit)."""
        self._reader.settimeout(seconds)
        try:
            return self._reader.recv(1)[0]
        except TimeoutError:
            return None

    def _ignore(self, _signal_number: int, _frame: FrameType | None) -> None:
        """Take the default action away; the number arrives through the descriptor."""


class RankWatch:
    """The ranks of one launch, numbered in the order of `processes`."""

    def __init__(
        self, processes: Sequence[subprocess.Popen[bytes]], *, grace_seconds: float = _GRACE_SECONDS
    ) -> None:
        self._processes = processes
        self._grace_seconds = grace_seconds
        self._passed_on: list[int] = []
        self._ends: dict[int, RankEnd] = {}
        self._sent: list[int] = []
        self._terminate_at: float | None = None
        self._kill_at: float | None = None

    @property
    def abandoned(self) -> bool:
        """Whether a second Ctrl-C asked the ranks to leave without saving."""
        return len(self._passed_on) > 1 and signal.SIGINT in self._passed_on[1:]

    def wait(self, signals: Signals) -> tuple[RankEnd, ...]:
        """Pass every stop signal on, once to each rank, until all have ended; their ends, first to last.

        When one has failed, or the first has ended, the others are given some time to notice by themselves.
        """
        while len(self._ends) < len(self._processes):
            number = signals.next(self._seconds_to_next_move())
            if number in STOP_SIGNALS:
                self._pass_on(number)
            self._note_ends()
            self._move(time.monotonic())
        return tuple(self._ends.values())

    def _pass_on(self, number: int) -> None:
        self._passed_on.append(number)
        self._signal_all(number)
        if self.abandoned and self._kill_at is None:
            self._kill_at = time.monotonic() + _ABANDON_SECONDS

    def _note_ends(self) -> None:
        for rank, process in enumerate(self._processes):
            if rank not in self._ends and process.poll() is not None:
                self._ends[rank] = end = self._end(rank, process)
                if (end.exit_code or rank == 0) and self._terminate_at is None:
                    self._terminate_at = time.monotonic() + self._grace_seconds

    def _end(self, rank: int, process: subprocess.Popen[bytes]) -> RankEnd:
        code = process.returncode
        # a stop that met the interpreter on its way out, where no handler is left
        stopped = -code in self._passed_on
        killed_by = -code if code < 0 and not stopped else 0
        exit_code = 128 - code if code < 0 else code
        # also one that heard what it was sent, and left of itself
        obeyed = exit_code - 128 in self._sent and exit_code - 128 not in self._passed_on
        return RankEnd(
            rank=rank,
            pid=process.pid,
            exit_code=exit_code,
            signal_number=killed_by,
            forced=killed_by in self._sent or obeyed,
        )

    def _move(self, now: float) -> None:
        """What is due against ranks that do not end by themselves."""
        if self._kill_at is not None:
            if now >= self._kill_at and signal.SIGKILL not in self._sent:
                self._force(signal.SIGKILL)
        elif self._terminate_at is not None and now >= self._terminate_at:
            self._kill_at = now + self._grace_seconds
            self._force(signal.SIGTERM)

    def _force(self, number: int) -> None:
        self._sent.append(number)
        self._signal_all(number)

    def _seconds_to_next_move(self) -> float | None:
        due = self._kill_at if self._kill_at is not None else self._terminate_at
        if due is None or signal.SIGKILL in self._sent:
            return None
        return max(0.01, due - time.monotonic())

    def _signal_all(self, number: int) -> None:
        for process in self._processes:
            # does nothing for one that has ended, whose pid may be another's by now
            process.send_signal(number)
