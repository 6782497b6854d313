"""A training that was stopped at any moment and resumed in a new process is bitwise the uninterrupted one."""

from __future__ import annotations

import shutil
import time
from signal import SIGINT, SIGKILL, SIGSTOP, SIGTERM

import pytest

from diffcli.cli.app import run_app
from diffcli.cli.handler import run as run_in_this_process
from diffcli.registry.create import open_run
from diffcli.registry.process import host_name
from diffcli.registry.state import observe
from diffcli.registry.status import read_status
from diffcli.training import checkpoints
from runs_in_processes import (
    NEW,
    PRESET,
    RESUME,
    SAVE_EVERY,
    STEPS,
    Bench,
    Moment,
    assert_same_training,
    attempts,
    checkpoint,
    content,
    fork,
    leftovers,
    make_bench,
    rows,
    start,
    status,
    wait_until,
)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A bench with one run, made by the command line as a user has it."""
    bench = make_bench(tmp_path_factory.mktemp("uninterrupted"))
    trained = start(bench, *NEW).succeeds()
    assert trained.output.startswith(f"run-1\tcompleted\tstep {STEPS}/{STEPS}\tloss ")
    assert [row.step for row in rows(bench.run())] == [3, 6, 9, 12]
    return bench


@pytest.fixture
def completed(uninterrupted, tmp_path):
    """A copy of the uninterrupted bench, to damage."""
    shutil.copytree(uninterrupted.directory, tmp_path, dirs_exist_ok=True)
    return Bench(directory=tmp_path)


def state_now(bench):
    paths = open_run(bench.runs, "run-1").paths
    return observe(paths, read_status(paths)).state


STOPS = {
    "before the first row and checkpoint": (Moment(event="StepDone", step=1, signal_number=SIGTERM), 2),
    "in the middle of a log interval": (Moment(event="StepDone", step=4, signal_number=SIGINT), 5),
    "where a checkpoint is due anyway": (Moment(event="StepDone", step=7, signal_number=SIGTERM), 8),
    "where a row is due anyway": (Moment(event="SaveBegun", step=8, signal_number=SIGINT), 9),
}


@pytest.mark.parametrize("stop", STOPS)
def test_a_clean_stop_and_resume_change_no_bit(stop, bench, uninterrupted):
    moment, stopped_at = STOPS[stop]
    stopped = fork(bench, *NEW, moment=moment)
    assert stopped.exit_code() == 128 + moment.signal_number
    assert f"run-1 was stopped after step {stopped_at}; its state is saved" in stopped.errors
    assert "go on with: diffcli train --resume run-1" in stopped.errors
    run = bench.run()
    said = status(run)
    assert (said["state"], said["step"]) == ("stopped", stopped_at)
    assert said["exit_code"] == 128 + moment.signal_number
    assert checkpoints.newest_good(run / "checkpoints").step == stopped_at
    assert leftovers(run) == []

    resumed = fork(bench, *RESUME).succeeds()
    assert f"run-1 goes on from step {stopped_at}" in resumed.errors
    assert "note:" not in resumed.errors
    assert [attempt["first_step"] for attempt in attempts(run)] == [0, stopped_at]
    assert status(run)["state"] == "completed"
    assert_same_training(run, uninterrupted.run())


# and the newest checkpoint that there can be by then: it may still be on its way to the disk
KILLS = {
    "before the first checkpoint": (Moment(event="StepDone", step=2, signal_number=SIGKILL), 0),
    "while a checkpoint is written": (Moment(event="SaveBegun", step=4, signal_number=SIGKILL), 4),
    "as a checkpoint was saved": (Moment(event="CheckpointSaved", step=4, signal_number=SIGKILL), 8),
    "after a row that will come again": (Moment(event="IntervalLogged", step=6, signal_number=SIGKILL), 4),
    "just before a checkpoint is due": (Moment(event="StepDone", step=8, signal_number=SIGKILL), 4),
    "between the last checkpoint and the end": (
        Moment(event="CheckpointSaved", step=12, signal_number=SIGKILL),
        12,
    ),
}


def newest_step(run):
    """The step of the newest checkpoint; 0 when there is none."""
    return max(checkpoints.steps_present(run / "checkpoints"), default=0)


def leave_what_a_kill_inside_a_write_leaves(run):
    (run / ".status.json.a1b2c3.tmp").write_bytes(b"{")
    (run / "attempts" / ".002.json.a1b2c3.tmp").write_bytes(b"{")
    for name in (".staging-step-000008", ".removing-step-000004-17"):
        (run / "checkpoints" / name).mkdir(parents=True)
        (run / "checkpoints" / name / "model.safetensors").write_bytes(b"half")


@pytest.mark.parametrize("kill", KILLS)
def test_a_kill_and_resume_change_no_bit(kill, bench, uninterrupted):
    moment, newest = KILLS[kill]
    assert fork(bench, *NEW, moment=moment).exit_code() == -SIGKILL
    run = bench.run()
    resumed_from = newest_step(run)
    assert resumed_from in (newest, newest - SAVE_EVERY)
    if moment.event == "CheckpointSaved":
        assert resumed_from >= moment.step
    assert status(run)["state"] == "running"
    assert state_now(bench) == "crashed"
    leave_what_a_kill_inside_a_write_leaves(run)
    resumed = fork(bench, *RESUME).succeeds()
    notice = (
        f"goes on from step {resumed_from}" if resumed_from else "has no checkpoint yet: it starts at step 0"
    )
    assert f"run-1 {notice}" in resumed.errors
    assert attempts(run)[-1]["first_step"] == resumed_from
    assert (state_now(bench), status(run)["step"]) == ("completed", STEPS)
    assert leftovers(run) == []
    assert_same_training(run, uninterrupted.run())


def test_three_kills_in_one_run_change_no_bit(bench, uninterrupted):
    kills = [("StepDone", 6), ("CheckpointSaved", 8), ("StepDone", 11)]
    arguments, first_steps = NEW, [0]
    for event, step in kills:
        moment = Moment(event=event, step=step, signal_number=SIGKILL)
        assert fork(bench, *arguments, moment=moment).exit_code() == -SIGKILL
        arguments = RESUME
        first_steps.append(newest_step(bench.run()))
    fork(bench, *RESUME).succeeds()
    assert [attempt["first_step"] for attempt in attempts(bench.run())] == first_steps
    assert first_steps[-1] >= 8
    assert_same_training(bench.run(), uninterrupted.run())


def test_the_command_line_stopped_from_outside_and_resumed_changes_no_bit(bench, uninterrupted):
    trainer = start(bench, *NEW)
    wait_until((bench.run() / "metrics.jsonl").exists, trainer)
    trainer.send(SIGINT)
    assert trainer.exit_code() == 130
    assert "stopping after this step, then saving" in trainer.errors
    assert "Traceback" not in trainer.errors
    assert status(bench.run())["state"] == "stopped"
    assert start(bench, *RESUME).succeeds().output.startswith("run-1\tcompleted\tstep 12/12\tloss ")
    assert_same_training(bench.run(), uninterrupted.run())


def test_a_stop_in_the_last_step_finds_nothing_left_to_do(bench, uninterrupted):
    moment = Moment(event="StepDone", step=STEPS - 1, signal_number=SIGTERM)
    fork(bench, *NEW, moment=moment).succeeds()
    assert status(bench.run())["state"] == "completed"
    assert status(bench.run())["exit_code"] == 0
    assert_same_training(bench.run(), uninterrupted.run())


def test_previews_change_no_bit_and_are_repeated_by_a_resume(bench, uninterrupted):
    settings = ["--set", "training.preview_every=5"]
    moment = Moment(event="StepDone", step=8, signal_number=SIGKILL)
    assert fork(bench, *NEW, *settings, moment=moment).exit_code() == -SIGKILL
    previews = bench.run() / "previews"
    first = (previews / "step-000005.png").read_bytes()
    (previews / "step-000005.png").unlink()
    fork(bench, *RESUME).succeeds()
    assert sorted(path.name for path in previews.iterdir()) == ["step-000005.png", "step-000010.png"]
    assert (previews / "step-000005.png").read_bytes() == first
    assert_same_training(bench.run(), uninterrupted.run())


def test_the_schedule_sampler_and_microbatches_resume_bitwise(tmp_path):
    settings = ["training.schedule_sampler=loss-second-moment", "diffusion.steps=8"]
    settings += ["training.microbatch=3", "training.ema_warmup_steps=5"]
    options = [option for setting in settings for option in ("--set", setting)]
    whole, parts = make_bench(tmp_path / "whole"), make_bench(tmp_path / "parts")
    uninterrupted = fork(whole, *NEW, *options)
    moment = Moment(event="StepDone", step=4, signal_number=SIGINT)
    assert fork(parts, *NEW, *options, moment=moment).exit_code() == 130
    history = checkpoints.read_tensors(checkpoint(parts.run(), 5), "schedule_sampler")
    assert history["counts"].sum() == 5 * 8
    fork(parts, *RESUME).succeeds()
    uninterrupted.succeeds()
    assert_same_training(parts.run(), whole.run())


def test_the_loss_scale_of_fp16_resumes_bitwise(tmp_path):
    # in its third step this seed draws a timestep whose loss overflows
    settings = ["training.seed=299", "training.batch_size=2", "training.log_every=1"]
    settings += ["diffusion.objective=vlb_unscaled", "training.precision=fp16"]
    options = ["--steps", "7", *(option for setting in settings for option in ("--set", setting))]
    whole, parts = make_bench(tmp_path / "whole"), make_bench(tmp_path / "parts")
    uninterrupted = fork(whole, *NEW, *options)
    moment = Moment(event="StepDone", step=4, signal_number=SIGINT)
    assert fork(parts, *NEW, *options, moment=moment).exit_code() == 130
    counters = checkpoints.read_counters(checkpoint(parts.run(), 5))
    assert counters["optimizer_updates"] == 4
    assert counters["loss_scale"] == pytest.approx(2**20 * 2**-1 * 2**0.004, rel=1e-6)
    fork(parts, *RESUME).succeeds()
    uninterrupted.succeeds()
    logged = rows(whole.run())
    assert [row.step for row in logged if row.grad_norm is None] == [3]
    assert logged[2].loss_scale == pytest.approx(2**19 * 2**0.002, rel=1e-6)
    assert logged[2].param_norm == logged[1].param_norm
    assert_same_training(parts.run(), whole.run(), step=7)


def test_bf16_trains_and_resumes_bitwise(tmp_path):
    whole, parts = make_bench(tmp_path / "whole"), make_bench(tmp_path / "parts")
    uninterrupted = fork(whole, *NEW, "--precision", "bf16")
    moment = Moment(event="StepDone", step=9, signal_number=SIGKILL)
    assert fork(parts, *NEW, "--precision", "bf16", moment=moment).exit_code() == -SIGKILL
    fork(parts, *RESUME).succeeds()
    uninterrupted.succeeds()
    assert_same_training(parts.run(), whole.run())
    assert rows(whole.run())[-1].mse.overall < rows(whole.run())[0].mse.overall


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(completed, uninterrupted):
    run = completed.run()
    weights = checkpoint(run, STEPS) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    resumed = fork(completed, *RESUME).succeeds()
    assert (
        f"warning: a newer checkpoint is damaged and not used: runs/run-1/checkpoints/step-{STEPS:06d}"
        in (resumed.errors)
    )
    assert "run-1 goes on from step 8" in resumed.errors
    assert attempts(run)[-1]["first_step"] == 8
    assert_same_training(run, uninterrupted.run())


def test_damaged_newer_checkpoints_never_crowd_out_a_good_one(completed):
    run = completed.run()
    for step in (8, 12):
        (checkpoint(run, step) / "optimizer.safetensors").write_bytes(b"")
    moment = Moment(event="CheckpointSaved", step=5, signal_number=SIGKILL)
    settings = ["--set", "training.keep_last=2", "--set", "training.save_every=1"]
    assert fork(completed, *RESUME, *settings, moment=moment).exit_code() == -SIGKILL
    assert checkpoints.newest_good(run / "checkpoints").step in (5, 6, 7)


def test_a_run_without_a_good_checkpoint_is_not_started_anew(completed):
    run = completed.run()
    for step in checkpoints.steps_present(run / "checkpoints"):
        (checkpoint(run, step) / "state.json").unlink()
    before = content_of_tree(run)
    refused = fork(completed, *RESUME)
    assert refused.exit_code() == 5
    assert "error: none of the 3 checkpoints in runs/run-1/checkpoints is good" in refused.errors
    assert "step-000012/state.json: the file is missing" in refused.errors
    assert content_of_tree(run) == before


def content_of_tree(run):
    """All files but the lock, which is signed by whoever looks."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "run.lock"}


def refusal(bench, capsys, monkeypatch, *arguments):
    """Exit code and message of a command that does not come to need a process of its own."""
    monkeypatch.chdir(bench.directory)
    before = content_of_tree(bench.run())
    code = run_in_this_process(run_app, arguments)
    assert content_of_tree(bench.run()) == before
    return code, capsys.readouterr().err


def test_what_makes_another_training_is_refused(uninterrupted, capsys, monkeypatch):
    options = ["--set", "training.lr=2e-4", "--seed", "7", "--set", "model.channels=64", "--steps", "20"]
    code, message = refusal(uninterrupted, capsys, monkeypatch, *RESUME, *options)
    assert code == 2
    assert "training.lr = 0.0002" in message
    assert "training.seed = 7" in message
    assert "model.channels = 64" in message
    assert "training.steps = 20" not in message
    assert "cannot differ from run-1's" in message
    code, message = refusal(uninterrupted, capsys, monkeypatch, *RESUME, "--name", "other")
    assert (code, "--name" in message) == (2, True)


def test_another_dataset_is_refused(uninterrupted, capsys, monkeypatch):
    code, message = refusal(uninterrupted, capsys, monkeypatch, *RESUME, "--data", "data/digits/test")
    assert code == 2
    assert "the dataset is not the one that run-1 was trained on" in message
    assert "297 images, then 1500" in message


def test_fewer_steps_than_were_done_are_refused(completed):
    before = content_of_tree(completed.run())
    refused = fork(completed, *RESUME, "--steps", "9")
    assert refused.exit_code() == 2
    assert "training.steps is 9, but run-1 has done 12" in refused.errors
    assert content_of_tree(completed.run()) == before


def test_more_steps_go_on_where_the_run_had_ended(bench, uninterrupted):
    fork(bench, *NEW, "--steps", "8").succeeds()
    run = bench.run()
    assert status(run)["state"] == "completed"
    resumed = fork(bench, *RESUME, "--steps", str(STEPS)).succeeds()
    assert "run-1 goes on from step 8" in resumed.errors
    assert attempts(run)[1]["changes"] == [{"key": "training.steps", "before": 8, "after": STEPS}]
    assert status(run)["total_steps"] == STEPS
    # the row of the end at step 8 has cut the interval up to step 9 in two
    assert [row.step for row in rows(run)] == [3, 6, 8, 9, 12]
    assert rows(run)[-1] == rows(uninterrupted.run())[-1]
    assert content(checkpoint(run, STEPS)) == content(checkpoint(uninterrupted.run(), STEPS))


def test_a_completed_run_says_so_and_stays_as_it_is(completed):
    before = content_of_tree(completed.run())
    resumed = fork(completed, *RESUME).succeeds()
    assert "run-1 is complete" in resumed.errors
    assert resumed.output.startswith(f"run-1\tcompleted\tstep {STEPS}/{STEPS}\tloss ")
    assert content_of_tree(completed.run()) == before


def test_a_run_in_use_is_refused_and_names_its_user(bench, uninterrupted):
    trainer = fork(bench, *NEW, moment=Moment(event="IntervalLogged", step=6, signal_number=SIGSTOP))
    run = bench.run()
    wait_until(lambda: [row.step for row in rows(run)] == [3, 6], trainer)
    wait_until(lambda: state_now(bench) == "stale", trainer)
    before = content_of_tree(run)
    refused = fork(bench, *RESUME)
    assert refused.exit_code() == 4
    assert f"run-1 is in use by {trainer.pid}@{host_name()}" in refused.errors
    assert content_of_tree(run) == before
    trainer.send(SIGKILL)
    assert trainer.exit_code() == -SIGKILL
    fork(bench, *RESUME).succeeds()
    assert_same_training(run, uninterrupted.run())


def test_two_interrupts_leave_within_two_seconds_and_the_last_checkpoint_stays_good(tmp_path):
    # steps long enough to be interrupted twice
    bench = make_bench(tmp_path, PRESET.replace("batch_size = 8", "batch_size = 800"))
    trainer = fork(bench, *NEW, "--set", "training.save_every=1")
    run = bench.run()
    wait_until(checkpoint(run, 1).exists, trainer)
    wait_until(lambda: '"saved"' in (run / "events.jsonl").read_text(), trainer)
    trainer.send(SIGINT)
    wait_until(lambda: status(run)["state"] == "stopping", trainer)
    asked_at = time.monotonic()
    trainer.send(SIGINT)
    assert trainer.exit_code() == 130
    assert time.monotonic() - asked_at < 2
    said = status(run)
    assert (said["state"], said["exit_code"]) == ("stopped", 130)
    assert "leaving at once (interrupted twice); the last checkpoint is untouched" in trainer.errors
    assert checkpoints.newest_good(run / "checkpoints").step == 1
    assert state_now(bench) == "stopped"
