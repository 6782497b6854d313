"""The view of a training run: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

from diffcli.console.numbers import bytes_text, duration_text, significant
from diffcli.console.terminal import is_interactive, print_notice, rich_console
from diffcli.records.training import (
    CheckpointSaved,
    IntervalLogged,
    LoggedTerms,
    MetricRow,
    StepDone,
    TermMeans,
    TrainingEvent,
    TrainingScope,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

_PLAIN_SECONDS_BETWEEN_LINES = 5.0
_REDRAWS_PER_SECOND = 4.0


class TrainingView(Protocol):
    """Draws training events."""

    def show(self, event: TrainingEvent) -> None:
        """Draw one event."""

    def notice(self, text: str) -> None:
        """Draw a remark; may be called from another thread."""

    def close(self) -> None:
        """Leave the screen as it should stay."""


class TrainingScreen:
    """Shows a training in the way that suits stderr."""

    def __init__(self) -> None:
        self._view: TrainingView | None = None

    def started(self, scope: TrainingScope) -> None:
        """Say what is trained where, and open the view."""
        processes = "" if scope.world_size == 1 else f" in {scope.world_size} processes"
        print_notice(f"training {scope.run_id} on {scope.device}{processes}: {scope.directory}")
        self._view = LiveTrainingView(scope) if is_interactive(sys.stderr) else PlainTrainingView(scope)

    def show(self, event: TrainingEvent) -> None:
        """Draw one event."""
        if self._view is not None:
            self._view.show(event)

    def notice(self, text: str) -> None:
        """Draw a remark; may be called from another thread."""
        if self._view is None:
            print_notice(text)
        else:
            self._view.notice(text)

    def ended(self) -> None:
        """Leave the screen as it should stay."""
        if self._view is not None:
            self._view.close()


class _Pace:
    """Steps per second since the view was opened."""

    def __init__(self, scope: TrainingScope) -> None:
        self._scope = scope
        self._started = time.monotonic()

    def remaining(self, step: int) -> str:
        done = step - self._scope.first_step
        if done <= 0:
            return "?"
        seconds_per_step = (time.monotonic() - self._started) / done
        return duration_text(seconds_per_step * (self._scope.total_steps - step))

    def until_save(self, step: int) -> str:
        every = self._scope.save_every
        next_save = min(self._scope.total_steps, (step // every + 1) * every)
        return f"step {next_save}"


class PlainTrainingView:
    """A line every few seconds, for logs and pipes."""

    def __init__(self, scope: TrainingScope) -> None:
        self._scope = scope
        self._pace = _Pace(scope)
        self._last_line_at = 0.0

    def show(self, event: TrainingEvent) -> None:
        """Print rows, unless one was printed just before and nothing was measured in it, and checkpoints."""
        if isinstance(event, IntervalLogged):
            last = event.row.step == self._scope.total_steps
            due = time.monotonic() - self._last_line_at >= _PLAIN_SECONDS_BETWEEN_LINES
            if last or due or _was_measured(event.row):
                self._last_line_at = time.monotonic()
                print_notice(self._line(event.row))
        elif isinstance(event, CheckpointSaved):
            print_notice(f"saved step {event.step} ({bytes_text(event.size_bytes)}, {event.seconds:.1f} s)")

    def notice(self, text: str) -> None:
        """Print the remark."""
        print_notice(text)

    def close(self) -> None:
        """Nothing stays open."""

    def _line(self, row: MetricRow) -> str:
        parts = [f"step {row.step}/{self._scope.total_steps}"]
        parts += [f"{name} {significant(term.overall)}" for name, term in (*_terms(row), *_validation(row))]
        parts += [f"{metric.name} {significant(metric.value)}" for metric in row.samples]
        parts += [
            f"grad {_norm_text(row.grad_norm)}",
            f"lr {significant(row.lr)}",
            f"{row.speed.images_per_second:.1f} images/s",
            f"waiting {row.speed.data_wait_share:.0%}",
            f"left {self._pace.remaining(row.step)}",
        ]
        return "  ".join(parts)


class LiveTrainingView:
    """A bar and a small table that stay in place."""

    def __init__(self, scope: TrainingScope) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._scope = scope
        self._pace = _Pace(scope)
        self._row: MetricRow | None = None
        self._measured: MetricRow | None = None
        self._step = scope.first_step
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            expand=True,
        )
        self._task = self._bar.add_task(scope.run_id, total=scope.total_steps, completed=scope.first_step)
        self._live = Live(
            get_renderable=self._draw,
            console=rich_console(sys.stderr),
            refresh_per_second=_REDRAWS_PER_SECOND,
        )
        self._live.start()

    def show(self, event: TrainingEvent) -> None:
        """Take the event in; the screen follows at its own rate."""
        if isinstance(event, StepDone):
            self._step = event.step
            self._bar.update(self._task, completed=event.step)
        elif isinstance(event, IntervalLogged):
            self._row = event.row
            self._measured = event.row if _was_measured(event.row) else self._measured
        elif isinstance(event, CheckpointSaved):
            self.notice(f"saved step {event.step} ({bytes_text(event.size_bytes)}, {event.seconds:.1f} s)")

    def notice(self, text: str) -> None:
        """Print the remark above the bar."""
        self._live.console.print(text, markup=False)

    def close(self) -> None:
        """Draw a last time and give the terminal back."""
        self._live.stop()

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [self._bar]
        if self._row is not None:
            parts.append(_terms_table(self._row, self._measured))
            lines = f"{_optimizer_line(self._row)}\n{self._speed_line(self._row)}"
            parts.append(Text(lines))
        return Group(*parts)

    def _speed_line(self, row: MetricRow) -> str:
        parts = [
            f"{row.speed.images_per_second:.1f} images/s",
            f"waiting for data {row.speed.data_wait_share:.0%}",
            f"memory {bytes_text(row.speed.memory_bytes)}",
            f"left {self._pace.remaining(self._step)}",
            f"next save {self._pace.until_save(self._step)}",
        ]
        return " · ".join(parts)


def _optimizer_line(row: MetricRow) -> str:
    parts = [
        f"lr {significant(row.lr)}",
        f"gradient {_norm_text(row.grad_norm)}",
        f"weights {significant(row.param_norm)}",
        f"{row.images_seen:,} images seen",
    ]
    if row.loss_scale is not None:
        parts.append(f"loss scale {significant(row.loss_scale)}")
    return " · ".join(parts)


def _norm_text(norm: float | None) -> str:
    return "overflow" if norm is None else significant(norm)


def _terms_table(row: MetricRow, measured: MetricRow | None) -> RenderableType:
    """The terms of the latest row, and what was measured last: on the validation split, of samples."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("", "all", "q0", "q1", "q2", "q3", *(("",) if measured else ())):
        table.add_column(column, justify="right")
    for name, term in _terms(row):
        table.add_row(name, *_cells(term))
    if measured is not None:
        for name, term in _validation(measured):
            table.add_row(name, *_cells(term), f"at step {measured.step}")
        for metric in measured.samples:
            table.add_row(metric.name, significant(metric.value), *[""] * 4, f"at step {measured.step}")
    return table


def _terms(row: MetricRow | LoggedTerms) -> list[tuple[str, TermMeans]]:
    """What a training has of these, in the order in which it is shown."""
    named = (("loss", row.loss), ("mse", row.mse), ("vb", row.vb), ("acc@1", row.acc1), ("acc@5", row.acc5))
    return [(name, term) for name, term in named if term is not None]


def _was_measured(row: MetricRow) -> bool:
    return row.val is not None or bool(row.samples)


def _validation(row: MetricRow) -> list[tuple[str, TermMeans]]:
    return [(f"val {name}", term) for name, term in _terms(row.val)] if row.val else []


def _cells(term: TermMeans) -> list[str]:
    return ["" if value is None else significant(value) for value in (term.overall, *term.quartiles)]
