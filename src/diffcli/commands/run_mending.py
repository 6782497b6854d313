"""One run under its lock: what is wrong with it, and what can be done about that."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from diffcli import durable
from diffcli.commands.checkpoint_verdicts import Verdict, damaged_name, put_aside, verdict_on
from diffcli.commands.run_config import current_config
from diffcli.errors import CorruptError, LockedError, StorageError
from diffcli.records.run_repair import Finding, FindingOutcome, RepairedRun, RepairOutcome
from diffcli.records.runs import StoredState
from diffcli.registry.contents import step_directories
from diffcli.registry.create import Run
from diffcli.registry.events import Event, append_event
from diffcli.registry.json_lines import read_lines
from diffcli.registry.json_records import NewerSchemaError
from diffcli.registry.leftovers import leftovers_of
from diffcli.registry.metrics import read_metrics
from diffcli.registry.paths import RunPaths
from diffcli.registry.rebuild import rebuilt_status
from diffcli.registry.run_record import (
    Annotations,
    RunRecord,
    attempt_numbers,
    read_attempts,
    read_run_record,
    stored_annotations,
    write_annotations,
)
from diffcli.registry.state import ACTIVE, is_elsewhere, observe
from diffcli.registry.status import RunStatus, read_status, write_status

# what a resume goes on from
_UNFINISHED: tuple[StoredState, ...] = ("created", "stopped", "failed")


class Mending:
    """The repair of one run, and what was found meanwhile; a dry run only finds."""

    def __init__(self, run: RunPaths, *, dry_run: bool, force: bool) -> None:
        self._run = run
        self._dry_run = dry_run
        self._force = force
        self._findings: list[Finding] = []
        self._state: StoredState | None = None

    def mend(self) -> None:
        """Put the run in order; its lock is held, or in a dry run free.

        Raises CorruptError or StorageError at what ends the repair, and LockedError when the run may be in
        use where its lock does not reach.
        """
        record = read_run_record(self._run)
        status, fault = self._read_status()
        gone = None if status is None else self._why_gone(status)
        self._clear_leftovers()
        newest = self._judge(self._run.checkpoints)
        self._judge(self._run.ema_snapshots)
        self._mend_annotations(record)
        self._count_torn_lines()
        if status is None:
            status = self._rebuild_status(Run(id=record.id, paths=self._run, record=record), fault, newest)
        elif gone is not None:
            status = self._end(status, gone)
        self._state = status.state
        # a resume needs these too
        current_config(Run(id=record.id, paths=self._run, record=record))
        self._note_in_events(status)

    def give_up(self, what: str, remedy: str) -> None:
        """Note what ends the repair."""
        self._find(what, remedy or "left", "beyond repair")

    def passed_over(self, error: LockedError) -> RepairedRun:
        """The result for a run in use."""
        finding = Finding(what=error.what, action=error.remedy or "passed over", outcome="left")
        return RepairedRun(
            id=self._run.directory.name, outcome="in use", findings=(finding,), next_command=None
        )

    def result(self) -> RepairedRun:
        """What was found, and what to do next."""
        name = self._run.directory.name
        outcome = self._outcome()
        resumable = outcome == "mended" and self._state in _UNFINISHED
        return RepairedRun(
            id=name,
            outcome=outcome,
            findings=tuple(self._findings),
            next_command=f"diffcli train --resume {name}" if resumable else None,
        )

    def _outcome(self) -> RepairOutcome:
        outcomes = {finding.outcome for finding in self._findings}
        if "beyond repair" in outcomes:
            return "beyond repair"
        return "mended" if "mended" in outcomes else "in order"

    def _find(self, what: str, action: str, outcome: FindingOutcome) -> None:
        self._findings.append(Finding(what=what, action=action, outcome=outcome))

    def _mend(self, what: str, action: str, work: Callable[[], object]) -> None:
        if not self._dry_run:
            work()
        self._find(what, action, "mended")

    def _read_status(self) -> tuple[RunStatus | None, str]:
        """The status, or what is wrong with it."""
        try:
            return read_status(self._run), ""
        except NewerSchemaError:
            raise
        except CorruptError as error:
            return None, error.what

    def _why_gone(self, status: RunStatus) -> str | None:
        """Why the process that should be training is gone; None when none should be."""
        observation = observe(self._run, status, holding_lock=not self._dry_run)
        if observation.state == "crashed":
            return observation.reason
        silent_elsewhere = observation.state == "stale" and is_elsewhere(status)
        if silent_elsewhere and self._force:
            return f"{observation.reason}; given up with --force"
        if observation.state not in (*ACTIVE, "stale"):
            return None
        process = f"{status.process.pid}@{status.process.host}"
        raise LockedError(
            f"{self._run.directory.name} is in use by {process}"
            + (f": {observation.reason}" if observation.reason else ""),
            remedy="passed over; --force ends it, if that process is gone" if silent_elsewhere else "",
        )

    def _clear_leftovers(self) -> None:
        for path in leftovers_of(self._run):
            self._mend(f"{self._shown(path)}: left by a killed process", "deleted", partial(_delete, path))

    def _judge(self, parent: Path) -> int:
        """Rename what is damaged in a directory of checkpoints; the newest good step, 0 for none."""
        verdicts = [verdict_on(entry) for entry in step_directories(parent)]
        good = [verdict.step for verdict in verdicts if verdict.soundness == "good"]
        for verdict in verdicts:
            if verdict.soundness == "unknown":
                self._find(verdict.reason, "left", "beyond repair")
            elif verdict.soundness == "damaged":
                self._set_aside(verdict, another_is_good=bool(good))
        return max(good, default=0)

    def _set_aside(self, verdict: Verdict, *, another_is_good: bool) -> None:
        if not another_is_good:
            # without any checkpoint a resume would start at step 0
            action = "left: no good one is there; restore one from a backup"
            self._find(verdict.reason, action, "beyond repair")
            return
        target = damaged_name(verdict.directory)
        action = f"renamed to {self._shown(target)}"
        self._mend(verdict.reason, action, partial(put_aside, verdict.directory, target))

    def _mend_annotations(self, record: RunRecord) -> None:
        path = self._run.annotations
        anew = partial(write_annotations, self._run, Annotations(name=record.name))
        try:
            if stored_annotations(self._run) is None:
                self._mend(f"{path} is missing", "written anew", anew)
        except NewerSchemaError:
            raise
        except CorruptError as error:
            aside = damaged_name(path)
            self._mend(error.what, f"renamed to {aside.name}", partial(put_aside, path, aside))
            self._mend("its pins, tags and note are lost", "written anew, with the name", anew)

    def _count_torn_lines(self) -> None:
        torn = (
            (self._run.metrics, read_metrics(self._run.metrics).unreadable_lines),
            (self._run.events, sum(value is None for value in read_lines(self._run.events))),
        )
        for path, count in torn:
            if count:
                self._find(f"{path.name}: {count} torn lines", "left: readers pass them over", "left")

    def _rebuild_status(self, run: Run, fault: str, newest: int) -> RunStatus:
        training = current_config(run).training
        status = rebuilt_status(
            run.paths,
            read_attempts(run.paths),
            total_steps=training.steps,
            batch_size=training.batch_size,
            checkpoint_step=newest,
        )
        action = f"rebuilt: {status.state} after step {status.step}"
        self._mend(fault, action, partial(write_status, run.paths, status))
        return status

    def _end(self, status: RunStatus, reason: str) -> RunStatus:
        ended = dataclasses.replace(status, state="failed", reason=reason, exit_code=None)
        fault = f"status.json says {status.state}, but {reason}"
        self._mend(fault, "set to failed", partial(write_status, self._run, ended))
        return ended

    def _note_in_events(self, status: RunStatus) -> None:
        mended = [finding for finding in self._findings if finding.outcome == "mended"]
        if self._dry_run or not mended:
            return
        event = Event(
            at=datetime.now(UTC),
            attempt=max(attempt_numbers(self._run), default=0),
            step=status.step,
            kind="repaired",
            message="; ".join(f"{finding.what}: {finding.action}" for finding in mended),
        )
        # the findings are told anyway
        with contextlib.suppress(StorageError):
            append_event(self._run.events, event)

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self._run.directory))


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        durable.remove_tree(path)
        return
    with durable.storage_errors(path):
        path.unlink(missing_ok=True)
