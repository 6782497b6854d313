"""The course of a command that works on many images: how far it is, and whether to stop."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from diffcli.commands.interruption import StopNow, StopRequests
from diffcli.errors import InterruptedRunError
from diffcli.records.datasets import PrepareListener, PrepareProgress, WorkUnit


@dataclass(frozen=True, kw_only=True)
class Course:
    """Who hears of the work, and of signals that end it, for the whole of a command.

    before: images of the splits before this one; total: of all of them; remedy: after a stop between images.
    """

    listener: PrepareListener
    stop: StopRequests
    remedy: str
    before: int = 0
    total: int = 0

    def told(self, done: int) -> None:
        """Tell that so many of this split are done; InterruptedRunError once a signal asks to stop."""
        self.listener.progress(self.before + done, self.total)
        self._go_on_after(done)

    def told_again(self, again: int, kept: int) -> None:
        """The same of the `kept` images that an interrupted preparation left, while they are read again."""
        self.listener.progress(again, kept)
        self._go_on_after(kept)

    def told_bytes(self, done: int, total: int) -> None:
        """The same of bytes of a file that stay when it is stopped."""
        self.listener.progress(done, total)
        if self.stop.signal_number:
            raise InterruptedRunError(
                f"stopped after {done:,} of {total:,} bytes, which are kept",
                signal_number=self.stop.signal_number,
                remedy=self.remedy,
            )

    @contextlib.contextmanager
    def phase(self, verb: str, unit: WorkUnit = "images") -> Iterator[PrepareProgress]:
        """Work that may be cut anywhere, to be done again next time; yields who hears how far it is.

        InterruptedRunError at the first signal, wherever the work is.
        """
        try:
            with self.stop.at_once():
                self.listener.begin(verb, unit)
                yield self.listener.progress
        except StopNow as stopped:
            raise InterruptedRunError(
                f"stopped while {verb}",
                signal_number=stopped.signal_number,
                remedy="the same command does that once more and goes on; what was finished before is kept",
            ) from stopped

    def of_split(self, before: int, total: int) -> Course:
        """The same for one of several splits."""
        return dataclasses.replace(self, before=before, total=total)

    def _go_on_after(self, done: int) -> None:
        if self.stop.signal_number:
            raise InterruptedRunError(
                f"stopped after {self.before + done} of {self.total} images",
                signal_number=self.stop.signal_number,
                remedy=self.remedy,
            )


@contextlib.contextmanager
def preparing(listener: PrepareListener) -> Iterator[Course]:
    """The course of a preparation, from the first look at its request to the end. Main thread only."""
    with StopRequests(on_request=listener.on_stop) as stop:
        yield Course(listener=listener, stop=stop, remedy="the same command goes on from there")
