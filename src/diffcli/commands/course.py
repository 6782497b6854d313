"""Work on many images, split by split: how far it is, and whether to stop."""

from __future__ import annotations

from dataclasses import dataclass

from diffcli.commands.interruption import StopRequests
from diffcli.errors import InterruptedRunError
from diffcli.records.datasets import PrepareListener


@dataclass(frozen=True, kw_only=True)
class Course:
    """How far all splits are together; before: images of the splits before; remedy: after a stop."""

    listener: PrepareListener
    stop: StopRequests
    before: int
    total: int
    remedy: str

    def told(self, done: int) -> None:
        """Tell that so many of this split are done; InterruptedRunError once a signal asks to stop."""
        self.listener.progress(self.before + done, self.total)
        self._go_on_after(done)

    def told_again(self, again: int, kept: int) -> None:
        """The same of the `kept` images that an interrupted preparation left, while they are read again."""
        self.listener.progress(again, kept)
        self._go_on_after(kept)

    def _go_on_after(self, done: int) -> None:
        if self.stop.signal_number:
            raise InterruptedRunError(
                f"stopped after {self.before + done} of {self.total} images",
                signal_number=self.stop.signal_number,
                remedy=self.remedy,
            )
