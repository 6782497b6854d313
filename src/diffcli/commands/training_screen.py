"""Who watches a training, and what keeps a training safe from its watcher."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Protocol, Self

from diffcli.records.training import TrainingEvent, TrainingScope


class TrainingWatcher(Protocol):
    """Draws a training; only the first process calls it. Whatever it raises is passed over."""

    def started(self, scope: TrainingScope) -> None:
        """The training begins."""

    def show(self, event: TrainingEvent) -> None:
        """Something happened."""

    def notice(self, text: str) -> None:
        """A remark; may come from another thread."""

    def ended(self) -> None:
        """The training is over, well or not."""


class Screen:
    """The watcher, if this process has one; that it cannot draw must not stop a training."""

    def __init__(self, watcher: TrainingWatcher | None) -> None:
        self._watcher = watcher

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher is not None:
            with contextlib.suppress(Exception):
                self._watcher.ended()

    def started(self, scope: TrainingScope) -> None:
        """The training begins."""
        if self._watcher is not None:
            with contextlib.suppress(Exception):
                self._watcher.started(scope)

    def show(self, event: TrainingEvent) -> None:
        """Something happened."""
        if self._watcher is not None:
            with contextlib.suppress(Exception):
                self._watcher.show(event)

    def notice(self, text: str) -> None:
        """A remark."""
        if self._watcher is not None:
            with contextlib.suppress(Exception):
                self._watcher.notice(text)
