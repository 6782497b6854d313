"""One step for all processes to stop after, whichever of them was asked to."""

from __future__ import annotations

from collections.abc import Callable

from diffcli.workers import Workers


class StopConsensus:
    """What signal any process was sent, agreed on without a step that waits for the others.

    Each step's message is read after the next step, so that all processes stop after the same one.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._asked: Callable[[], int] | None = None

    def agreed(self, signal_number: int) -> int:
        """Send this process's signal number, 0 for none, and give the largest that all sent a step ago."""
        if self._workers.world_size == 1:
            return signal_number
        asked, self._asked = self._asked, self._workers.ask_largest(signal_number)
        return asked() if asked is not None else 0
