"""The training loop: step, log, save, stop."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from diffcli import durable
from diffcli.config.sections import TrainingConfig
from diffcli.errors import DivergedError
from diffcli.records.training import (
    CheckpointSaved,
    IntervalLogged,
    MetricRow,
    PreviewDue,
    Speed,
    StepDone,
    Stopped,
    TrainingEvent,
)
from diffcli.training import checkpoints
from diffcli.training.learning_rate import learning_rate
from diffcli.training.state import TrainingState, content_of
from diffcli.training.step import Draws, Examples, TrainingStep
from diffcli.workers import Workers


@dataclass(frozen=True, kw_only=True)
class StepInput:
    """What one step takes in, and for how many seconds the loop waited for its images."""

    examples: Examples
    draws: Draws
    waited_seconds: float


@dataclass(frozen=True, kw_only=True)
class TrainingLoop:
    """Takes steps up to the last one or to a stop request, and tells what happens as events."""

    config: TrainingConfig
    workers: Workers
    state: TrainingState
    step: TrainingStep
    checkpoint_directory: Path

    def run(self, inputs: Iterable[StepInput], stop_signal: Callable[[], int]) -> Iterator[TrainingEvent]:
        """Train on the inputs, one per step; `stop_signal` gives the signal number once a stop was asked for.

        All processes stop after the same step. Raises DivergedError before anything that is not finite is
        saved, and StorageError when a checkpoint cannot be written.
        """
        clock = _Clock(self.workers.device)
        for step_input in inputs:
            self.step.take(step_input.examples, step_input.draws)
            clock.add(step_input.waited_seconds)
            done = self.state.step
            stopping = self.workers.largest(stop_signal())
            last = done == self.config.steps
            yield StepDone(step=done)
            if last or done % self.config.log_every == 0:
                row = self._end_interval(clock)
                if row is not None:
                    yield IntervalLogged(row=row)
            if last or stopping or done % self.config.save_every == 0:
                yield self._save()
            if stopping and not last:
                yield Stopped(step=done, signal_number=stopping)
                return
            if self.config.preview_every and done % self.config.preview_every == 0:
                yield PreviewDue(step=done)

    def _end_interval(self, clock: _Clock) -> MetricRow | None:
        """The row of the interval; None when fp16 overflowed in every sample of it."""
        state = self.state
        # added in rank order on every process, so that all of them see the same bits
        total = torch.stack(self.workers.gather_on_host(state.sums.tensor())).sum(dim=0)
        means = state.sums.means(total)
        state.sums.clear()
        if means is None:
            return None
        norm = float(self._parameter_norm())
        self._require_finite(means.loss.overall, means.grad_norm or 0.0, norm)
        return MetricRow(
            step=state.step,
            images_seen=state.images_seen,
            loss=means.loss,
            mse=means.mse,
            vb=means.vb,
            grad_norm=means.grad_norm,
            param_norm=norm,
            lr=learning_rate(self.config, state.step - 1),
            loss_scale=state.scaler.get_scale() if state.scaler.is_enabled() else None,
            speed=clock.end_interval(self.config.batch_size),
        )

    def _save(self) -> CheckpointSaved:
        started = time.monotonic()
        state = self.state
        sums = self.workers.gather_on_host(state.sums.tensor())
        self._require_finite(float(self._parameter_norm()), float(torch.stack(sums).sum()))
        # all wait until it is written: when one leaves early, a launcher ends the others, save or not
        size = self.workers.first_decides(lambda: self._write_checkpoint(sums))
        return CheckpointSaved(
            step=state.step,
            directory=checkpoints.directory_of(self.checkpoint_directory, state.step),
            seconds=time.monotonic() - started,
            size_bytes=size,
        )

    def _write_checkpoint(self, sums: list[Tensor]) -> int:
        """Save, let the old ones go, and give the bytes of the new one; StorageError if the disk refuses."""
        step = self.state.step
        directory = checkpoints.save(self.checkpoint_directory, step, content_of(self.state, sums))
        with durable.storage_errors(directory):
            size = sum(file.stat().st_size for file in directory.iterdir())
        checkpoints.prune(self.checkpoint_directory, up_to_step=step, keep_last=self.config.keep_last)
        return size

    def _parameter_norm(self) -> Tensor:
        return get_total_norm([parameter.detach() for parameter in self.state.model.parameters()])

    def _require_finite(self, *values: float) -> None:
        if all(math.isfinite(value) for value in values):
            return
        present = checkpoints.steps_present(self.checkpoint_directory)
        last = f"the last checkpoint, step {present[-1]}, is good" if present else "there is no checkpoint"
        raise DivergedError(
            f"training diverged at or before step {self.state.step}: the loss, its gradient or the weights "
            "are not finite",
            where=last,
            remedy="lower training.lr, or set training.grad_clip, in a new run",
        )


class _Clock:
    """Times the interval between two rows of metrics."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin()

    def _begin(self) -> None:
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
        self._begin()
        return speed


def _peak_memory_bytes(device: torch.device) -> int:
    """The most memory used so far: of the device on CUDA, of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
