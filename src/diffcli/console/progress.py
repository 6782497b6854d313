"""Progress of long work with a known total: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from diffcli.console.numbers import duration_text
from diffcli.console.terminal import is_interactive, print_notice, rich_console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SECONDS_BETWEEN_LINES = 5.0
_MEGABYTE = 1_000_000


class WorkProgress:
    """Call it with (done, total) as often as there is something to say; use it as a context."""

    def __init__(self, verb: str, unit: str) -> None:
        """unit: what is counted; bytes are shown as megabytes."""
        self._verb = verb
        self._unit = unit
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._started = self._last_line_at = time.monotonic()
        self._first: int | None = None

    def __enter__(self) -> Self:
        if is_interactive(sys.stderr):
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}  {task.fields[rate]}"),
                TimeRemainingColumn(),
                console=rich_console(sys.stderr),
                expand=True,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, verb: str, unit: str = "") -> None:
        """Count other work from here on; unit: as before when it is ""."""
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
        self._verb, self._unit = verb, unit or self._unit
        self._task, self._first = None, None
        if self._bar is not None:
            # of some work nobody knows how much it is: the bar shows that it is under way
            self._task = self._bar.add_task(verb, total=None, rate="", unit=self._shown_unit())

    def __call__(self, done: int, total: int) -> None:
        """Tell that `done` of `total` are finished."""
        if self._unit == "bytes":
            done, total = done // _MEGABYTE, total // _MEGABYTE
        unit = self._shown_unit()
        if self._first is None:
            # what an earlier run had done does not count towards the rate
            self._first, self._started = done, time.monotonic()
        rate = self._rate(done)
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(self._verb, total=total, rate="", unit=unit)
            shown = f"{rate:.1f} {unit}/s" if rate else ""
            self._bar.update(self._task, completed=done, total=total, rate=shown)
        elif time.monotonic() - self._last_line_at >= _SECONDS_BETWEEN_LINES:
            self._last_line_at = time.monotonic()
            left = f"  left {duration_text((total - done) / rate)}" if rate else ""
            print_notice(f"{self._verb} {done}/{total} {unit}  {rate:.1f} {unit}/s{left}")

    def notice(self, text: str) -> None:
        """A remark that does not tear the bar; may be called from another thread."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False)
        else:
            print_notice(text)

    def _shown_unit(self) -> str:
        return "MB" if self._unit == "bytes" else self._unit

    def _rate(self, done: int) -> float:
        seconds = time.monotonic() - self._started
        return (done - (self._first or 0)) / seconds if seconds > 0 else 0.0
