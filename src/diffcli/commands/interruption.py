"""Signals that ask a long command to stop: once politely, twice at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Self

# Under a launcher one Ctrl-C arrives twice: from the terminal and forwarded by the launcher.
_SAME_KEYPRESS_SECONDS = 1.0
_LAST_WORDS_SECONDS = 1.0


def _safely(action: Callable[..., None], *arguments: int | str) -> None:
    with contextlib.suppress(Exception):
        action(*arguments)


def _no_action(_signal_number: int) -> None:
    return None


def _no_last_words(_reason: str, _exit_code: int) -> None:
    return None


class StopNow(KeyboardInterrupt):
    """A signal came while work was under way that may be cut anywhere; no `except Exception` holds it up."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number


class StopRequests:
    """Listens for SIGINT and SIGTERM while a command runs.

    The first signal is told to `on_request` at once, even inside an operation of many seconds, and stands in
    `signal_number` for the command to find at its next boundary; a block of `at_once` ends there and then. A
    second SIGINT leaves the process with status 130, and `stop_within_seconds` (0: no limit) after a SIGTERM
    it is left with 143; before either, `on_abandon` is told the reason and the status. Both calls come from a
    thread. Use from the main thread only.
    """

    def __init__(
        self,
        *,
        on_request: Callable[[int], None] = _no_action,
        on_abandon: Callable[[str, int], None] = _no_last_words,
    ) -> None:
        self.signal_number = 0
        self.on_request = on_request
        self.on_abandon = on_abandon
        self.stop_within_seconds = 0
        self._deadline: threading.Timer | None = None
        self._requested_at = 0.0
        self._heard = 0
        self._cuts_at_once = False
        self._launched = "TORCHELASTIC_RUN_ID" in os.environ

    def __enter__(self) -> Self:
        # Python runs its own handlers only between operations, but writes to the descriptor at once
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._previous_descriptor = signal.set_wakeup_fd(self._writer.fileno())
        self._previous = {
            number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)
        }
        self._listener = threading.Thread(target=self._listen, name="stop-requests", daemon=True)
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_descriptor)
        if self._deadline is not None:
            self._deadline.cancel()
        self._writer.close()
        self._listener.join(timeout=1)
        self._reader.close()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that ends with StopNow between any two operations, at the first signal or an earlier one.

        For work that is simply done again: what it has written must be of no use when it is cut.
        """
        self._cuts_at_once = True
        try:
            if self._heard:
                raise StopNow(self._heard)
            yield
            # what runs as an object goes away swallows all that is raised in it
            if self._heard:
                raise StopNow(self._heard)
        finally:
            self._cuts_at_once = False

    def _hear(self, signal_number: int, _frame: FrameType | None) -> None:
        """In place of the default action; all but the end of a block of `at_once` is the listener's work."""
        self._heard = self._heard or signal_number
        if self._cuts_at_once:
            # what cleans up behind the first is not to be cut by the next
            self._cuts_at_once = False
            raise StopNow(signal_number)

    def _listen(self) -> None:
        while received := self._reader.recv(1):
            self._receive(received[0])

    def _receive(self, signal_number: int) -> None:
        if signal_number not in (signal.SIGINT, signal.SIGTERM):
            return
        now = time.monotonic()
        if signal_number == signal.SIGTERM and self.stop_within_seconds and self._deadline is None:
            self._set_deadline()
        if not self.signal_number:
            self.signal_number = signal_number
            self._requested_at = now
            # in a thread, as a message that cannot be shown must not keep the next signal from being heard
            threading.Thread(target=_safely, args=(self.on_request, signal_number), daemon=True).start()
            return
        forwarded = self._launched and now - self._requested_at < _SAME_KEYPRESS_SECONDS
        if signal_number == signal.SIGINT and not forwarded:
            self._leave("interrupted twice", 128 + signal.SIGINT)

    def _set_deadline(self) -> None:
        reason = f"not saved within the {self.stop_within_seconds} s of training.stop_within_seconds"
        # the last words take their share of the time
        seconds = max(0.0, self.stop_within_seconds - _LAST_WORDS_SECONDS)
        self._deadline = threading.Timer(seconds, self._leave, (reason, 128 + signal.SIGTERM))
        self._deadline.daemon = True
        self._deadline.start()

    def _leave(self, reason: str, exit_code: int) -> None:
        # whatever there is to say must not take longer than a person waits who asked twice
        last_words = threading.Thread(target=_safely, args=(self.on_abandon, reason, exit_code), daemon=True)
        last_words.start()
        last_words.join(_LAST_WORDS_SECONDS)
        os._exit(exit_code)
