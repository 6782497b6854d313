"""`diffcli runs repair`: what kills and bad disks leave is mended and told, and nothing of worth is lost."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

import runs_on_disk as disk
from diffcli.registry.create import Run
from diffcli.registry.events import read_events
from diffcli.registry.home import index_of, staging_of
from diffcli.registry.lock import acquire_lock
from diffcli.registry.paths import RunPaths
from diffcli.registry.process import ProcessIdentity, host_name, this_process
from diffcli.registry.run_record import Annotations, read_annotations, stored_annotations, write_annotations
from diffcli.registry.state import STALE_AFTER_SECONDS, observe
from diffcli.registry.status import RunStatus, read_status
from diffcli.training import checkpoints
from runs_in_processes import (
    NEW,
    RESUME,
    STEPS,
    Bench,
    Moment,
    fork,
    leftovers,
    make_bench,
    status,
)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A directory for runs that are made without training."""
    return Bench(directory=tmp_path)


@dataclass(frozen=True, kw_only=True)
class _Report:
    """How a repair ended, its JSON report, and its messages."""

    exit_code: int
    value: Any
    errors: str

    def run(self, number: int = 1) -> Any:
        """What it says of a run."""
        (found,) = (run for run in self.value["runs"] if run["id"] == f"run-{number}")
        return found

    def actions(self, number: int = 1) -> str:
        """What was found and done, as one text."""
        return "\n".join(
            f"{finding['what']}: {finding['action']}" for finding in self.run(number)["findings"]
        )


def _repair(bench: Bench, *arguments: str) -> _Report:
    process = fork(bench, "runs", "repair", "--json", *arguments)
    exit_code = process.exit_code()
    return _Report(exit_code=exit_code, value=json.loads(process.output), errors=process.errors)


def _content(directory: Path) -> dict[str, bytes]:
    """Every file with its bytes, but for the lock's."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "run.lock"
    }


def _left_running(run: Run, process: ProcessIdentity | None = None) -> RunStatus:
    """A status as a process leaves it that is killed, unless another is given."""
    process = process or disk.dead_process()
    return disk.set_status(run, state="running", step=1100, process=process, exit_code=None, reason="")


def _steps(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_killed_training_is_mended_and_goes_on(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    trainer = fork(bench, *NEW, moment=Moment(event="StepDone", step=6, signal_number=SIGKILL))
    assert trainer.exit_code() == -SIGKILL
    run = bench.run()
    assert status(run)["state"] == "running"
    (run / "checkpoints" / ".staging-step-000008").mkdir()
    (run / "checkpoints" / ".staging-step-000008" / "model.safetensors").write_bytes(b"half")
    report = _repair(bench)
    assert report.exit_code == 0
    assert report.run()["outcome"] == "mended"
    reason = f"process {trainer.pid} is gone"
    assert f"status.json says running, but {reason}: set to failed" in report.actions()
    assert "checkpoints/.staging-step-000008: left by a killed process: deleted" in report.actions()
    assert (status(run)["state"], status(run)["reason"]) == ("failed", reason)
    assert leftovers(run) == []
    assert report.run()["next_command"] == "diffcli train --resume run-1"
    fork(bench, *RESUME).succeeds()
    assert (status(run)["state"], status(run)["step"]) == ("completed", STEPS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pid": disk.DEAD_PID}, f"process {disk.DEAD_PID} is gone"),
        ({"started": "1"}, f"process {os.getpid()} is another one by now"),
        ({"boot": "an earlier one"}, f"{host_name()} was restarted since"),
    ],
    ids=["killed", "pid given again", "machine restarted"],
)
def test_however_its_process_went_a_run_that_seems_to_run_becomes_failed(
    bench: Bench, changes: dict[str, Any], reason: str
) -> None:
    run = disk.trained_run(bench.runs, 500)
    _left_running(run, dataclasses.replace(this_process(), **changes))
    assert _repair(bench).exit_code == 0
    ended = read_status(run.paths)
    assert (ended.state, ended.step, ended.reason) == ("failed", 1100, reason)


def test_a_dry_run_tells_the_same_and_changes_nothing(bench: Bench) -> None:
    run = disk.trained_run(bench.runs, 500, 1000)
    _left_running(run)
    disk.damage(disk.save_checkpoint(run.paths.checkpoints, 1100))
    (run.paths.attempts / ".002.json.abc.tmp").write_text("{")
    (staging_of(bench.runs) / f"7@{disk.DEAD_PID}@{host_name()}").mkdir()
    before = _content(bench.runs)
    dry = _repair(bench, "--dry-run")
    assert _content(bench.runs) == before
    assert staging_of(bench.runs).joinpath(f"7@{disk.DEAD_PID}@{host_name()}").is_dir()
    assert (dry.exit_code, dry.value["dry_run"]) == (0, True)
    done = _repair(bench)
    assert done.value["runs"] == dry.value["runs"]
    assert done.value["home_findings"] == dry.value["home_findings"] != []
    again = _repair(bench)
    assert again.run()["outcome"] == "in order"
    assert again.run()["findings"] == again.value["home_findings"] == []


def test_people_and_pipes_are_told_what_was_done_and_what_to_type_next(bench: Bench) -> None:
    _left_running(disk.trained_run(bench.runs, 500))
    disk.new_run(bench.runs)
    process = fork(bench, "runs", "repair").succeeds()
    rows = [line.split("\t") for line in process.output.splitlines()]
    assert rows[0] == ["id", "outcome", "found", "action"]
    assert rows[1][:2] == ["run-1", "mended"]
    assert rows[1][3] == "set to failed"
    assert len(rows) == 2
    assert "looked at 2 runs: 1 in order, 1 mended" in process.errors
    assert "next: diffcli train --resume run-1" in process.errors


def test_a_run_in_training_is_passed_over_and_named_and_the_others_are_mended(bench: Bench) -> None:
    for _ in range(2):
        _left_running(disk.trained_run(bench.runs, 500))
    busy = disk.trained_run(bench.runs, 500)
    staged = busy.paths.checkpoints / ".staging-step-001000"
    staged.mkdir()
    with acquire_lock(busy.paths):
        before = _content(busy.paths.directory)
        report = _repair(bench)
        named = _repair(bench, "run-3", "--dry-run")
    assert report.exit_code == named.exit_code == 0
    assert [run["outcome"] for run in report.value["runs"]] == ["in use", "mended", "mended"]
    assert f"run-3 is in use by {os.getpid()}@{host_name()}" in report.actions(3)
    assert [run["outcome"] for run in named.value["runs"]] == ["in use"]
    assert _content(busy.paths.directory) == before
    assert staged.is_dir()


def test_only_the_runs_that_were_named_are_touched(bench: Bench) -> None:
    runs = [disk.trained_run(bench.runs, 500, name=name) for name in ("first", "second")]
    for run in runs:
        _left_running(run)
    report = _repair(bench, "first")
    assert [run["id"] for run in report.value["runs"]] == ["run-1"]
    assert [read_status(run.paths).state for run in runs] == ["failed", "running"]
    missing = fork(bench, "runs", "repair", "frist")
    assert missing.exit_code() == 3
    assert "did you mean first" in missing.errors


def test_a_run_that_fell_silent_on_another_machine_is_ended_only_by_force(bench: Bench) -> None:
    run = disk.trained_run(bench.runs, 500)
    disk.make_silent(run, minutes=STALE_AFTER_SECONDS / 60 + 5)
    before = _content(run.paths.directory)
    report = _repair(bench)
    assert (report.exit_code, report.run()["outcome"]) == (0, "in use")
    assert "in use by 77@another-host" in report.actions()
    assert "--force" in report.actions()
    assert _content(run.paths.directory) == before
    assert _repair(bench, "--force").run()["outcome"] == "mended"
    assert read_status(run.paths).state == "failed"
    assert "no heartbeat from another-host" in read_status(run.paths).reason


def test_a_run_whose_heart_beats_elsewhere_is_not_even_ended_by_force(bench: Bench) -> None:
    run = disk.trained_run(bench.runs, 500)
    disk.make_silent(run, minutes=1)
    report = _repair(bench, "--force")
    assert (report.exit_code, report.run()["outcome"]) == (0, "in use")
    assert read_status(run.paths).state == "running"


def test_a_living_process_without_its_lock_file_is_not_ended_by_force(bench: Bench) -> None:
    run = disk.trained_run(bench.runs, 500)
    _left_running(run, this_process())
    report = _repair(bench, "--force")
    assert report.run()["outcome"] == "in use"
    assert f"{os.getpid()}@{host_name()}" in report.actions()
    assert read_status(run.paths).state == "running"


BROKEN = {"missing": None, "empty": "", "cut": '{"schema": 1, "sta', "no object": "[]", "no fields": "{}"}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_status_is_rebuilt_from_what_the_rest_tells(bench: Bench, content: str | None) -> None:
    run = disk.trained_run(bench.runs, 500, 1000)
    before = read_status(run.paths)
    run.paths.status.unlink()
    if content is not None:
        run.paths.status.write_text(content)
    report = _repair(bench)
    assert report.exit_code == 0
    assert "status.json" in report.actions()
    assert "rebuilt: stopped after step 1000" in report.actions()
    now = read_status(run.paths)
    assert (now.state, now.reason, now.step) == ("stopped", "stopped by SIGTERM", 1000)
    assert (now.total_steps, now.images_seen) == (before.total_steps, 1000 * disk.BATCH_SIZE)
    assert (now.process.pid, now.world_size) == (disk.DEAD_PID, 2)


def test_a_rebuilt_status_knows_a_completed_a_killed_and_an_untouched_run(bench: Bench) -> None:
    completed, killed = disk.trained_run(bench.runs, 500), disk.trained_run(bench.runs, 500)
    untouched = disk.new_run(bench.runs)
    disk.note(completed, "started", "attempt 2 from step 500", step=500)
    disk.note(completed, "completed", "", step=2000)
    disk.save_checkpoint(completed.paths.checkpoints, 2000)
    disk.note(killed, "started", "attempt 2 from step 500", step=500)
    for run in (completed, killed, untouched):
        run.paths.status.unlink()
    report = _repair(bench)
    assert report.exit_code == 0
    states = [read_status(run.paths) for run in (completed, killed, untouched)]
    assert [(now.state, now.step) for now in states] == [("completed", 2000), ("failed", 500), ("created", 0)]
    assert "not known" in states[1].reason
    assert [run["next_command"] is None for run in report.value["runs"]] == [False, False, True]
    for run in (completed, killed, untouched):
        assert observe(run.paths, read_status(run.paths)).state == read_status(run.paths).state


def test_broken_annotations_are_written_anew_and_the_broken_ones_kept(bench: Bench) -> None:
    run = disk.trained_run(bench.runs, 500, name="base")
    write_annotations(run.paths, Annotations(name="renamed", pinned_steps=(500,)))
    broken = run.paths.annotations.read_bytes()[:-9]
    for number in ("", "-2"):
        run.paths.annotations.write_bytes(broken)
        report = _repair(bench)
        assert report.exit_code == 0
        assert "pins, tags and note are lost" in report.actions()
        assert read_annotations(run.paths, run.record) == Annotations(name="base")
        aside = run.paths.directory / f"damaged-annotations.json{number}"
        assert aside.read_bytes() == broken
    run.paths.annotations.unlink()
    assert _repair(bench).run()["outcome"] == "mended"
    assert stored_annotations(run.paths) == Annotations(name="base")


@pytest.mark.parametrize("file", ["status.json", "annotations.json", "run.json"])
def test_what_a_newer_diffcli_wrote_is_left_alone(bench: Bench, file: str) -> None:
    run = disk.trained_run(bench.runs, 500)
    path = run.paths.directory / file
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99, "new": "field"}))
    before = _content(run.paths.directory)
    report = _repair(bench)
    assert report.exit_code == 5
    assert "upgrade" in report.actions()
    assert _content(run.paths.directory) == before


def test_a_checkpoint_of_a_newer_diffcli_is_not_taken_for_damaged(bench: Bench) -> None:
    run = disk.trained_run(bench.runs, 500, 1000)
    manifest = run.paths.checkpoints / "step-001000" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema": 99}))
    report = _repair(bench)
    assert report.exit_code == 5
    assert "newer" in report.actions()
    assert _steps(run.paths.checkpoints) == ["step-000500", "step-001000"]


@pytest.mark.parametrize("damaged", [(500,), (1500,), (500, 1500)])
def test_damaged_checkpoints_are_renamed_and_no_longer_count(bench: Bench, damaged: tuple[int, ...]) -> None:
    run = disk.trained_run(bench.runs, 500, 1000, 1500)
    for step in damaged:
        disk.damage(run.paths.checkpoints / f"step-{step:06d}")
    report = _repair(bench)
    assert report.exit_code == 0
    good = sorted({500, 1000, 1500} - set(damaged))
    assert checkpoints.steps_present(run.paths.checkpoints) == tuple(good)
    found = checkpoints.newest_good(run.paths.checkpoints)
    assert (found.step, found.rejected) == (good[-1], ())
    for step in damaged:
        aside = run.paths.checkpoints / f"damaged-step-{step:06d}"
        assert (aside / "model.safetensors").is_file()
        assert f"renamed to checkpoints/{aside.name}" in report.actions()
    # the same step may be damaged once more
    disk.damage(disk.save_checkpoint(run.paths.checkpoints, damaged[0]))
    assert _repair(bench).exit_code == 0
    assert (run.paths.checkpoints / f"damaged-step-{damaged[0]:06d}-2").is_dir()


def test_when_no_checkpoint_is_good_none_is_renamed(bench: Bench) -> None:
    run = disk.trained_run(bench.runs, 500, 1000)
    for step in (500, 1000):
        disk.damage(run.paths.checkpoints / f"step-{step:06d}")
    report = _repair(bench)
    assert report.exit_code == 5
    assert report.run()["outcome"] == "beyond repair"
    assert report.actions().count("restore one from a backup") == 2
    # renamed, they would let a resume start at step 0
    assert checkpoints.steps_present(run.paths.checkpoints) == (500, 1000)


def test_damaged_snapshots_are_renamed_too(bench: Bench) -> None:
    run = disk.trained_run(bench.runs, 500)
    for step in (100, 200):
        disk.save_checkpoint(run.paths.ema_snapshots, step)
    disk.damage(run.paths.ema_snapshots / "step-000200")
    assert _repair(bench).exit_code == 0
    assert _steps(run.paths.ema_snapshots) == ["damaged-step-000200", "step-000100"]


def test_leftovers_of_killed_writers_go_and_work_in_progress_stays(bench: Bench) -> None:
    run = disk.trained_run(bench.runs, 500)
    disk.save_checkpoint(run.paths.abandoned / "001" / "checkpoints", 900)
    disk.save_checkpoint(run.paths.ema_snapshots, 100)
    paths, directory = run.paths, run.paths.directory
    gone = [
        paths.checkpoints / ".staging-step-000600" / "model.safetensors",
        paths.checkpoints / ".removing-step-000400-77" / "manifest.json",
        paths.ema_snapshots / ".staging-step-000200" / "std-0.05.safetensors",
        paths.abandoned / "001" / "checkpoints" / ".removing-step-000800-77" / "manifest.json",
        paths.attempts / ".002.json.x1.tmp",
        paths.previews / ".step-000500.png.x1.tmp",
        directory / ".status.json.x1.tmp",
        directory / ".run.json.x1.tmp",
    ]
    # whoever writes these needs no lock: they count when they are old
    perhaps = [
        paths.samples / ".first.making" / "samples_9x8x8x1.npz",
        paths.evaluations / ".nll.json.x1.tmp",
        directory / ".annotations.json.x1.tmp",
    ]
    kept = [paths.samples / ".first.parts" / "batch-000000.bin", directory / ".mine"]
    for path in (*gone, *perhaps, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    before = _content(directory)
    assert _repair(bench).run()["outcome"] == "mended"
    after = _content(directory)
    assert set(before) - set(after) == {str(path.relative_to(directory)) for path in gone}
    hours_ago = time.time() - 7200
    for path in perhaps:
        os.utime(path, (hours_ago, hours_ago))
        if path.parent.name.startswith("."):
            os.utime(path.parent, (hours_ago, hours_ago))
    assert _repair(bench).run()["outcome"] == "mended"
    left = _content(directory)
    assert set(after) - set(left) == {str(path.relative_to(directory)) for path in perhaps}
    assert {str(path.relative_to(directory)) for path in kept} < set(left)
    # nothing else was touched, but for the note in the event log
    assert {name: before[name] for name in left if name != "events.jsonl"} == {
        name: left[name] for name in left if name != "events.jsonl"
    }


def test_torn_lines_are_counted_and_left(bench: Bench) -> None:
    run = disk.trained_run(bench.runs, 500)
    for log in (run.paths.metrics, run.paths.events):
        log.write_bytes(log.read_bytes() + b'{"torn\n{"torn"')
    before = _content(run.paths.directory)
    report = _repair(bench)
    assert (report.exit_code, report.run()["outcome"]) == (0, "in order")
    assert "metrics.jsonl: 2 torn lines" in report.actions()
    assert "events.jsonl: 2 torn lines" in report.actions()
    assert _content(run.paths.directory) == before


def test_what_was_mended_is_noted_in_the_event_log(bench: Bench) -> None:
    run = disk.trained_run(bench.runs, 500)
    _left_running(run)
    _repair(bench)
    event = read_events(run.paths.events)[-1]
    assert (event.kind, event.attempt) == ("repaired", 1)
    assert "set to failed" in event.message


def test_what_is_beyond_repair_is_told_last_and_keeps_no_other_from_its_repair(bench: Bench) -> None:
    runs = [disk.trained_run(bench.runs, 500) for _ in range(4)]
    for run in runs:
        _left_running(run)
    runs[0].paths.record.write_text("{")
    shutil.rmtree(runs[1].paths.directory)
    runs[1].paths.directory.write_text("a file where a run should be")
    attempt = runs[2].paths.attempts / "001.json"
    attempt.write_text("")
    before = _content(runs[0].paths.directory)
    report = _repair(bench)
    assert report.exit_code == 5
    assert "error: beyond repair: run-3, run-2, run-1" in report.errors
    assert "Traceback" not in report.errors
    assert [run["outcome"] for run in report.value["runs"]] == ["mended", *["beyond repair"] * 3]
    assert "run.json" in report.actions(1)
    assert "is no directory: move it away: diffcli runs rm run-2" in report.actions(2)
    assert "001.json" in report.actions(3)
    assert _content(runs[0].paths.directory) == before
    assert read_status(runs[3].paths).state == "failed"
    listed = fork(bench, "runs", "ls").succeeds()
    assert [line.split("\t")[3] for line in listed.output.splitlines()[1:]] == [
        "failed",
        "failed",
        "unreadable",
        "unreadable",
    ]


def test_what_killed_makers_and_lists_left_in_the_home_goes(bench: Bench) -> None:
    disk.new_run(bench.runs)
    dead = staging_of(bench.runs) / f"7@{disk.DEAD_PID}@{host_name()}"
    living = staging_of(bench.runs) / f"8@{os.getpid()}@{host_name()}"
    for staged in (dead, living):
        staged.mkdir(parents=True)
    index_of(bench.runs).write_text("broken")
    temporary = bench.runs / f".{index_of(bench.runs).name}.x1.tmp"
    temporary.write_text("half")
    report = _repair(bench)
    assert report.exit_code == 0
    assert [finding["action"] for finding in report.value["home_findings"]] == ["deleted"]
    assert (dead.exists(), living.exists(), temporary.exists()) == (False, True, False)
    assert not index_of(bench.runs).exists()


def test_nothing_to_repair_is_no_error(bench: Bench) -> None:
    process = fork(bench, "runs", "repair").succeeds()
    assert process.output == "id\toutcome\tfound\taction\n"
    assert "looked at 0 runs" in process.errors
    assert not bench.runs.exists()


def test_a_run_that_cannot_be_locked_is_left_alone(bench: Bench) -> None:
    _left_running(disk.trained_run(bench.runs, 500))
    # also root cannot lock this
    lock = bench.run() / "run.lock"
    lock.unlink()
    lock.mkdir()
    report = _repair(bench)
    assert report.exit_code == 5
    assert "run.lock" in report.actions()
    assert read_status(RunPaths(bench.run())).state == "running"
