"""The training loop: step, log, save, stop."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch.nn.utils import get_total_norm

from diffcli.config.sections import TrainingConfig
from diffcli.errors import DivergedError
from diffcli.records.training import (
    CheckpointSaved,
    IntervalLogged,
    MetricRow,
    PreviewDue,
    SampleMetric,
    SaveBegun,
    Speed,
    StepDone,
    Stopped,
    TrainingEvent,
)
from diffcli.training import checkpoints
from diffcli.training.checkpoints import CheckpointContent
from diffcli.training.learning_rate import learning_rate
from diffcli.training.objective import Draws, Examples, Objective
from diffcli.training.saver import BackgroundSaver, Save
from diffcli.training.state import TrainingState, content_of, profile_tensors
from diffcli.training.step import TrainingStep
from diffcli.training.stop_consensus import StopConsensus
from diffcli.training.validation import Validation
from diffcli.workers import Workers

_OVERFLOWS_IN_A_ROW = 50


@dataclass(frozen=True, kw_only=True)
class StepInput:
    """What one step takes in, and for how many seconds the loop waited for its images."""

    examples: Examples
    draws: Draws
    waited_seconds: float


@dataclass(frozen=True, kw_only=True)
class TrainingLoop:
    """Takes steps up to the last one or to a stop request, and tells what happens as events.

    validation: None for a training that measures itself by its own images only; measured_samples: draws some
    and tells their metrics, the same in all processes, None where none are drawn.
    """

    config: TrainingConfig
    workers: Workers
    state: TrainingState
    objective: Objective
    step: TrainingStep
    validation: Validation | None
    measured_samples: Callable[[], tuple[SampleMetric, ...]] | None
    saver: BackgroundSaver

    def run(self, inputs: Iterable[StepInput], stop_signal: Callable[[], int]) -> Iterator[TrainingEvent]:
        """Train on the inputs, one per step; `stop_signal` gives the signal number once a stop was asked for.

        All processes stop after the same step. Checkpoints in between are written while training goes on, and
        one that fails is told as an event. Raises DivergedError before anything that is not finite is saved,
        and StorageError when the last checkpoint, or that of a stop, cannot be written.
        """
        try:
            yield from self._take_steps(inputs, stop_signal)
        except DivergedError as error:
            # what is under way was copied before, and counts
            yield from self.saver.settle()
            # all wait for it, or a launcher ends those who write
            error.where = self.workers.first_decides(self._newest_checkpoint)
            raise

    def _take_steps(
        self, inputs: Iterable[StepInput], stop_signal: Callable[[], int]
    ) -> Iterator[TrainingEvent]:
        clock = _Clock(self.workers.device)
        stops = StopConsensus(self.workers)
        for step_input in inputs:
            self.step.take(step_input.examples, step_input.draws)
            clock.add(step_input.waited_seconds)
            self._require_fp16_to_work()
            done = self.state.step
            stopping = stops.agreed(stop_signal())
            last = done == self.config.steps
            yield StepDone(step=done)
            yield from self.saver.finished()
            if last or done % self.config.log_every == 0:
                yield from self._end_interval(clock)
            yield from self._save_and_wait() if last or stopping else self._save_if_due()
            if stopping and not last:
                yield Stopped(step=done, signal_number=stopping)
                return
            if self.config.preview_every and done % self.config.preview_every == 0:
                yield PreviewDue(step=done)

    def save_start(self) -> CheckpointSaved | None:
        """Save the state as it is before the first step, so that a resume need not find it elsewhere."""
        save = self._save(checkpoint=True)
        return self.workers.first_decides(lambda: self.saver.store.write(save))

    def _end_interval(self, clock: _Clock) -> Iterator[IntervalLogged]:
        """The row of the interval; none when fp16 overflowed in every sample of it."""
        state = self.state
        # added in rank order on every process, so that all of them see the same bits
        total = torch.stack(self.workers.gather_on_host(state.sums.tensor())).sum(dim=0)
        self._require_health()
        means = state.sums.means(total)
        state.sums.clear()
        if means is None:
            return
        terms = self.objective.named(means.losses)
        row = MetricRow(
            step=state.step,
            images_seen=state.images_seen,
            loss=terms.loss,
            mse=terms.mse,
            vb=terms.vb,
            acc1=terms.acc1,
            acc5=terms.acc5,
            grad_norm=means.grad_norm,
            param_norm=self._finite_parameter_norm(),
            lr=learning_rate(self.config, state.step - 1),
            loss_scale=state.scaler.get_scale() if state.scaler.is_enabled() else None,
            speed=clock.end_interval(self.config.batch_size),
        )
        if self._evaluation_is_due():
            row = self._evaluated(row)
            # the time that took belongs to no interval
            clock.begin_interval()
        yield IntervalLogged(row=row)

    def _evaluated(self, row: MetricRow) -> MetricRow:
        if self.validation is not None:
            row = replace(row, val=self.validation.measure())
        if self.measured_samples is not None:
            row = replace(row, samples=self.measured_samples())
        return row

    def _evaluation_is_due(self) -> bool:
        every, done = self.config.eval_every, self.state.step
        return every > 0 and (done % every == 0 or done == self.config.steps)

    def _save_if_due(self) -> Iterator[TrainingEvent]:
        checkpoint = self.state.step % self.config.save_every == 0
        if checkpoint or self._snapshot_is_due():
            started = time.monotonic()
            save = self._save(checkpoint=checkpoint)
            # the first process writes; the others' state is the same
            if self.workers.is_first:
                yield from self.saver.begin(save)
            yield SaveBegun(step=save.step, pause_seconds=time.monotonic() - started)

    def _save_and_wait(self) -> Iterator[TrainingEvent]:
        """Save before the training ends; all wait for it, or a launcher ends those who write."""
        save = self._save(checkpoint=True)
        yield from self.saver.settle()
        saved = self.workers.first_decides(lambda: self.saver.store.write(save))
        if saved is not None:
            yield saved

    def _save(self, *, checkpoint: bool) -> Save:
        """What is to be saved now; DivergedError when it is not worth saving."""
        state = self.state
        # asked before anything is gathered: all processes find the same
        self._require_health()
        self._finite_parameter_norm()
        sums = self.workers.gather_on_host(state.sums.tensor()) if checkpoint else []
        snapshot = CheckpointContent(tensors=profile_tensors(state), counters={})
        return Save(
            step=state.step,
            # the others have nothing to write
            checkpoint=content_of(state, sums) if checkpoint and self.workers.is_first else None,
            ema_snapshot=snapshot if self._snapshot_is_due() else None,
        )

    def _snapshot_is_due(self) -> bool:
        every, done = self.config.ema_snapshot_every, self.state.step
        return every > 0 and done > 0 and (done % every == 0 or done == self.config.steps)

    def _finite_parameter_norm(self) -> float:
        norm = float(get_total_norm([parameter.detach() for parameter in self.state.model.parameters()]))
        if not math.isfinite(norm):
            raise _diverged(self.state.step, "the weights are no longer finite")
        return norm

    def _require_health(self) -> None:
        step = self.state.health.failed_step()
        if step is not None:
            raise _diverged(
                step, "the loss or its gradient was not finite, and no update was applied from there on"
            )

    def _require_fp16_to_work(self) -> None:
        overflows = self.state.overflows_in_a_row
        if overflows >= _OVERFLOWS_IN_A_ROW:
            raise _diverged(
                self.state.step,
                f"fp16 overflowed in {overflows} steps in a row, down to a loss scale of "
                f"{self.state.scaler.get_scale():.3g}",
            )

    def _newest_checkpoint(self) -> str:
        present = checkpoints.steps_present(self.saver.store.checkpoints)
        reached = [step for step in present if step <= self.state.step]
        return f"the newest checkpoint is that of step {reached[-1]}" if reached else "there is no checkpoint"


def _diverged(step: int, reason: str) -> DivergedError:
    return DivergedError(
        f"training diverged at step {step}: {reason}",
        step=step,
        remedy="--rollback STEP of --resume goes on from a checkpoint with other random numbers; "
        "a lower training.lr or training.grad_clip needs a new run (--from)",
    )


class _Clock:
    """Times the interval between two rows of metrics."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.begin_interval()

    def begin_interval(self) -> None:
        self._started = time.monotonic()
        self._waited_seconds = 0.0
        self._steps = 0

    def add(self, waited_seconds: float) -> None:
        self._waited_seconds += waited_seconds
        self._steps += 1

    def end_interval(self, images_per_step: int) -> Speed:
        seconds = max(time.monotonic() - self._started, 1e-9)
        speed = Speed(
            images_per_second=self._steps * images_per_step / seconds,
            seconds=seconds,
            data_wait_share=min(1.0, self._waited_seconds / seconds),
            memory_bytes=_peak_memory_bytes(self._device),
        )
        self.begin_interval()
        return speed


def _peak_memory_bytes(device: torch.device) -> int:
    """The most memory used so far: of the device on CUDA, of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
