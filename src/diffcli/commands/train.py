"""Train a new run, or go on with one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from diffcli.commands.assemble import (
    Assembly,
    assemble,
    require_work_for_all,
    step_inputs,
    validation_of,
)
from diffcli.commands.interruption import StopRequests
from diffcli.commands.journal import Journal, RunJournal, SilentJournal
from diffcli.commands.opening import OpenedRun, known_microbatch, open_to_train
from diffcli.commands.preview import draw_preview
from diffcli.commands.sample_metrics import sample_measure, training_process
from diffcli.commands.starting_point import fill_state, note_features, note_repeats, note_rounding
from diffcli.commands.training_data import TrainingData, open_data
from diffcli.commands.training_screen import Screen, TrainingWatcher
from diffcli.commands.training_target import TrainingTarget, TrainRequest, find_target
from diffcli.data.batches import BatchSource, Prefetcher
from diffcli.errors import CorruptError, DiffcliError, InterruptedRunError, StorageError
from diffcli.records.training import (
    CheckpointSaved,
    IntervalLogged,
    PreviewDue,
    SaveFailed,
    StepDone,
    Stopped,
    TrainingEvent,
    TrainingResult,
    TrainingScope,
)
from diffcli.registry.create import Run
from diffcli.registry.lock import RunLock
from diffcli.registry.metrics import last_loss
from diffcli.registry.process import host_name, this_process
from diffcli.registry.provenance import installed_versions
from diffcli.registry.run_record import Attempt, pinned_steps
from diffcli.training.host_copy import HostBuffers
from diffcli.training.loop import TrainingLoop
from diffcli.training.microbatch import is_out_of_memory, memory_errors
from diffcli.training.retention import retention_of
from diffcli.training.saver import BackgroundSaver, Store
from diffcli.training.validation import Validation
from diffcli.workers import Workers, WorkersSettings

__all__ = ["TrainRequest", "train"]

_PEERS = ("training", "--resume goes on from the last checkpoint")


def train(request: TrainRequest, watcher: TrainingWatcher) -> TrainingResult:
    """Train until the last step.

    Raises InterruptedRunError after a clean stop, DivergedError, StorageError, and what `find_target` and
    `open_data` raise.
    """
    target = find_target(request)
    config = target.config
    data = open_data(target)
    source = BatchSource(
        data.training, config.data, seed=config.training.seed, batch_size=config.training.batch_size
    )
    with StopRequests(on_request=_leave_before_the_start(watcher)) as stop:
        workers = Workers(
            WorkersSettings(
                device=request.device,
                precision=config.training.precision,
                threads=target.threads,
                deterministic=config.training.deterministic,
            )
        )
        require_work_for_all(config, data.validation, workers)
        training = _Training(target, workers, stop, watcher)
        try:
            with workers.peer_failures(*_PEERS):
                result = training.run(data, source)
        except InterruptedRunError:
            # all processes stop after the same step, so all come here
            workers.close()
            raise
        workers.close()
    return result


def _leave_before_the_start(watcher: TrainingWatcher) -> Callable[[int], None]:
    """What a signal sets off as long as there is nothing to save, perhaps in a wait for other processes."""

    def leave(signal_number: int) -> None:
        if os.environ.get("RANK", "0") == "0":
            watcher.notice("stopped before the training began")
        os._exit(128 + signal_number)

    return leave


class _Training:
    """One attempt at a run, in one of its processes."""

    def __init__(
        self, target: TrainingTarget, workers: Workers, stop: StopRequests, watcher: TrainingWatcher
    ) -> None:
        self._target = target
        self._config = target.config
        self._workers = workers
        self._stop = stop
        self._screen = Screen(watcher if workers.is_first else None)
        self._lock: RunLock | None = None

    def run(self, data: TrainingData, source: BatchSource) -> TrainingResult:
        """Open the run, train, and tell how it ended."""
        workers, config = self._workers, self._config
        process = training_process(workers, self._stop, self._screen)
        # what it needs and is not there is to be told before there is a run
        measure = sample_measure(self._target, data.training, process)
        opened = workers.first_decides(lambda: self._open(data))
        if opened.complete:
            self._screen.notice(f"{opened.run.id} is complete: all of its steps are done")
            return self._result(opened.run)
        attempt = self._attempt(opened)
        saver = BackgroundSaver(self._store(opened.run), HostBuffers(workers.device))
        journal = self._journal(opened.run, attempt)
        self._stop.on_request, self._stop.on_abandon = self._reactions(journal)
        self._stop.stop_within_seconds = config.training.stop_within_seconds
        with journal, workers.peer_failures(*_PEERS), self._screen, saver:
            microbatch = known_microbatch(opened, attempt, config, workers)
            assembly = assemble(config, workers, microbatch=microbatch)
            facts = None if measure is None else measure.facts
            attempt = replace(attempt, microbatch=assembly.microbatch, samples=facts)
            journal.begin(attempt)
            loop = TrainingLoop(
                config=config.training,
                workers=workers,
                state=assembly.state,
                objective=assembly.objective,
                step=assembly.step,
                validation=self._validation(data, assembly),
                measured_samples=None if measure is None else measure.ready(assembly, opened.run).measure,
                saver=saver,
            )
            say = partial(self._say, journal)
            fill_state(loop, opened, self._target, say)
            note_repeats(data.training.count, config.training.batch_size, say)
            note_rounding(opened, attempt, say)
            note_features(opened, attempt, say)
            self._screen.started(self._scope(opened, assembly))
            self._train(loop, source, assembly, opened.run, journal)
        return self._result(opened.run)

    def _validation(self, data: TrainingData, assembly: Assembly) -> Validation | None:
        if data.validation is None:
            return None
        return validation_of(data.validation, self._config, self._workers, assembly)

    def _train(
        self, loop: TrainingLoop, source: BatchSource, assembly: Assembly, run: Run, journal: Journal
    ) -> None:
        config, workers = self._config, self._workers
        steps = range(assembly.state.step, config.training.steps)
        share = workers.share(config.training.batch_size)
        if workers.device.type == "cuda":
            source.pin_memory()
        with (
            memory_errors(config, microbatch=assembly.microbatch, share=len(share)),
            Prefetcher(source, steps, share) as batches,
        ):
            inputs = step_inputs(batches, config, workers, assembly.state)
            for event in loop.run(inputs, lambda: self._stop.signal_number):
                self._react(event, run, assembly, journal)
                self._screen.show(event)

    def _open(self, data: TrainingData) -> OpenedRun:
        """Open the run; its lock stays with this process."""
        locked = open_to_train(self._target, data, self._attempt)
        self._lock = locked.lock
        if locked.opened.complete:
            locked.lock.release()
        return locked.opened

    def _result(self, run: Run) -> TrainingResult:
        steps = self._config.training.steps
        return TrainingResult(
            run_id=run.id,
            model_kind=self._config.model.kind,
            directory=run.paths.directory,
            state="completed",
            step=steps,
            total_steps=steps,
            last_loss=last_loss(run.paths.metrics),
            is_first=self._workers.is_first,
        )

    def _attempt(self, opened: OpenedRun) -> Attempt:
        workers = self._workers
        return Attempt(
            number=opened.attempt_number,
            started_at=datetime.now(UTC),
            first_step=opened.found.step if opened.found else 0,
            changes=self._target.changes,
            world_size=workers.world_size,
            device=str(workers.device),
            threads=workers.threads,
            precision=workers.precision,
            versions=installed_versions(),
            host=host_name(),
            pid=this_process().pid,
            rolled_back=self._target.request.rollback is not None,
            dataset=opened.new_dataset,
            validation=opened.new_validation,
        )

    def _store(self, run: Run) -> Store:
        def pinned() -> frozenset[int] | None:
            with contextlib.suppress(CorruptError, StorageError):
                return pinned_steps(run.paths)
            # what cannot be read may pin any of them
            return None

        return Store(
            checkpoints=run.paths.checkpoints,
            ema_snapshots=run.paths.ema_snapshots,
            retention=retention_of(self._config.training, pinned),
        )

    def _journal(self, run: Run, attempt: Attempt) -> Journal:
        if self._lock is None:
            return SilentJournal()
        return RunJournal(run, self._lock, attempt, total_steps=self._config.training.steps)

    def _scope(self, opened: OpenedRun, assembly: Assembly) -> TrainingScope:
        training = self._config.training
        return TrainingScope(
            run_id=opened.run.id,
            directory=opened.run.paths.directory,
            first_step=assembly.state.step,
            total_steps=training.steps,
            save_every=training.save_every,
            world_size=self._workers.world_size,
            device=str(self._workers.device),
        )

    def _react(self, event: TrainingEvent, run: Run, assembly: Assembly, journal: Journal) -> None:
        state = assembly.state
        match event:
            case StepDone():
                journal.at_step(state.step, state.images_seen)
            case IntervalLogged():
                journal.log_metrics(event.row)
            case CheckpointSaved():
                journal.note("saved", event.directory.name, step=event.step)
                if event.not_deleted:
                    self._say(journal, f"warning: an old checkpoint stays: {event.not_deleted}")
            case SaveFailed():
                self._say(journal, f"warning: nothing was saved at step {event.step}: {event.reason}")
            case PreviewDue() if self._workers.is_first:
                self._preview(assembly, run.paths.preview(event.step), journal)
            case Stopped():
                raise InterruptedRunError(
                    f"{run.id} was stopped after step {event.step}; its state is saved",
                    signal_number=event.signal_number,
                    remedy=f"go on with: diffcli train --resume {run.id}",
                )

    def _preview(self, assembly: Assembly, path: Path, journal: Journal) -> None:
        try:
            draw_preview(self._config, assembly, path)
        except (DiffcliError, RuntimeError, MemoryError) as error:
            if not (isinstance(error, StorageError) or is_out_of_memory(error)):
                raise
            # a picture is not worth a training
            self._say(journal, f"warning: no preview: {error}")

    def _reactions(self, journal: Journal) -> tuple[Callable[[int], None], Callable[[str, int], None]]:
        """What a first signal and what a second one, or a deadline, set off, in a thread of their own."""

        def requested(_signal_number: int) -> None:
            self._screen.notice("stopping after this step, then saving; Ctrl-C again leaves at once")
            journal.stopping()

        def abandoned(reason: str, exit_code: int) -> None:
            self._screen.notice(f"leaving at once ({reason}); the last checkpoint is untouched")
            journal.abandoned(reason, exit_code)

        return requested, abandoned

    def _say(self, journal: Journal, text: str) -> None:
        self._screen.notice(text)
        journal.note("notice", text)
