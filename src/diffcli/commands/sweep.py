"""Evaluate a run at every point that some axes span: `eval RUN --sweep steps=10,25 solver=ancestral,ddim`."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

from diffcli import durable
from diffcli.commands.evaluate_images import evaluate_in
from diffcli.commands.evaluation_conditions import evaluation_conditions
from diffcli.commands.evaluation_target import find_target
from diffcli.commands.image_evaluation_record import check_name
from diffcli.commands.image_evaluation_request import ImageEvaluationRequest
from diffcli.commands.open_evaluation import OpenEvaluation, open_evaluation
from diffcli.commands.sampling_process import SampleProgress
from diffcli.commands.sweep_axes import settings_text
from diffcli.commands.sweep_points import PlannedSweep, check_weights, pinned_checkpoint, planned_sweep
from diffcli.commands.sweep_record import default_name, recorded, sweep_of
from diffcli.commands.taken_names import check_sweep_name_free
from diffcli.errors import InterruptedRunError, UsageError
from diffcli.plots.figures import can_draw
from diffcli.plots.sweep_curve import draw_sweep
from diffcli.records.image_evaluations import ImageEvaluationResult
from diffcli.records.sweeps import SWEEP_SCHEMA, Sweep, SweepAxis, SweepResult
from diffcli.registry.create import Run
from diffcli.registry.json_records import write_record


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What `diffcli eval RUN --sweep` was asked for.

    evaluation: of every point, as far as the axes leave it open; its name is that of the sweep.
    """

    axes: tuple[SweepAxis, ...]
    evaluation: ImageEvaluationRequest


def sweep(request: SweepRequest, progress: SampleProgress) -> SweepResult:
    """Draw and evaluate what is missing of the points, and record them side by side.

    Each point is an evaluation like any other, and one that is recorded is only read. Errors: those of
    `planned_sweep` and `evaluate_images`, and InterruptedRunError after a clean stop: the same command goes
    on from the points that are done. Main thread only.
    """
    evaluation = request.evaluation
    check_name(evaluation.name)
    run = _run_of(evaluation)
    planned = planned_sweep(request.axes, evaluation.sampling)
    # `latest` may be another run by the time of the last point
    place = str(run.paths.directory.absolute())
    with open_evaluation(dataclasses.replace(evaluation, target=place), progress) as opened:
        return _Sweeping(request=request, run=run, planned=planned, opened=opened).run_to_the_end()


def _run_of(evaluation: ImageEvaluationRequest) -> Run:
    target = find_target(evaluation.target, evaluation.sampling.runs_home)
    if target.run is None or target.path is not None:
        raise UsageError(
            f"a sweep draws samples, and {evaluation.target} holds images",
            where="--sweep",
            remedy="give a run",
        )
    return target.run


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sweeping:
    """A sweep with everything found and open, in one of its processes."""

    request: SweepRequest
    run: Run
    planned: PlannedSweep
    opened: OpenEvaluation

    def run_to_the_end(self) -> SweepResult:
        """Evaluate point after point, then let the first process write the record."""
        process, began = self.opened.process, time.monotonic()
        for remark in self.planned.remarks:
            process.tell(remark)
        step = process.workers.first_decides(self._checkpoint)
        results = []
        for number in range(len(self.planned.points)):
            self._heed_stop(number)
            results.append(self._evaluated(number, step))
        finished = process.workers.first_decides(lambda: self._finished(results, began))
        return dataclasses.replace(finished, is_first=process.workers.is_first)

    def _checkpoint(self) -> int:
        """Of all points, once nothing speaks against the sweep."""
        step = pinned_checkpoint(self.run, self.request.evaluation.sampling)
        check_weights(self.planned, self.run, step)
        check_sweep_name_free(self.opened, self.request.evaluation, self.request.axes, step)
        return step

    def _heed_stop(self, done: int) -> None:
        """Raise InterruptedRunError in all processes if one of them was asked to stop between two points."""
        process = self.opened.process
        signal_number = process.workers.largest(process.stop.signal_number)
        if signal_number:
            raise InterruptedRunError(
                f"stopped with {done} of {len(self.planned.points)} points done",
                signal_number=signal_number,
                remedy="the same command goes on from there",
            )

    def _evaluated(self, number: int, step: int) -> ImageEvaluationResult:
        point = self.planned.points[number]
        self.opened.process.tell(
            f"point {number + 1} of {len(self.planned.points)}: {settings_text(point.settings)}"
        )
        sampling = dataclasses.replace(
            point.sampling, run=str(self.run.paths.directory.absolute()), checkpoint=step
        )
        request = dataclasses.replace(self.request.evaluation, sampling=sampling, name=None)
        return evaluate_in(self.opened, request)

    def _finished(self, results: list[ImageEvaluationResult], began: float) -> SweepResult:
        """In the first process: the record and its picture, unless they are there."""
        evaluation = self.request.evaluation
        conditions = evaluation_conditions(
            self.opened.process.workers,
            batch_size=results[0].evaluation.conditions.batch_size,
            precision="fp32",
            command_line=evaluation.sampling.command_line,
        )
        found = sweep_of(self.request.axes, self.planned, results, conditions)
        path = self.run.paths.evaluations / f"{evaluation.name or default_name(found)}.json"
        there = recorded(path, found, force=evaluation.force)
        if there is None:
            seconds = round(time.monotonic() - began, 3)
            found = dataclasses.replace(found, conditions=dataclasses.replace(conditions, seconds=seconds))
            # of the record that is replaced, if any
            with durable.storage_errors(path):
                _picture_of(path).unlink(missing_ok=True)
            write_record(path, found, schema=SWEEP_SCHEMA)
        return SweepResult(
            name=path.stem,
            path=path,
            picture=self._drawn(path, there or found),
            sweep=there or found,
            already_there=there is not None,
            is_first=True,
        )

    def _drawn(self, path: Path, found: Sweep) -> Path | None:
        """The picture beside the record; None with nothing to draw, or, with advice, without matplotlib."""
        picture = _picture_of(path)
        if not picture.is_file():
            if not any(point.metrics for point in found.points):
                return None
            if not can_draw():
                self.opened.process.tell(
                    "no picture of the sweep: pip install 'diffcli[plots]', and the same command draws it"
                )
                return None
            draw_sweep(picture, found, title=f"{found.run} at step {found.checkpoint}")
        return picture


def _picture_of(path: Path) -> Path:
    return path.with_suffix(".png")
