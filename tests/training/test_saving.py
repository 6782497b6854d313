"""Saving beside training: what a full disk, a hurry, pins and milestones do to the checkpoints."""

from __future__ import annotations

import json
import resource
import time
from signal import SIGTERM

import pytest

from diffcli.registry.create import open_run
from diffcli.registry.metrics import read_metrics
from diffcli.registry.run_record import Annotations, write_annotations
from diffcli.registry.state import observe
from diffcli.registry.status import read_status
from diffcli.training import checkpoints
from runs_in_processes import (
    NEW,
    PRESET,
    RESUME,
    SAVE_EVERY,
    STEPS,
    FullDisk,
    Moment,
    assert_same_training,
    checkpoint,
    fork,
    fork_ranks,
    leftovers,
    make_bench,
    options,
    rows,
    status,
    wait_until,
)

FOREVER = ("--steps", "100000", "--set", "training.lr_anneal_steps=0")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of one uninterrupted training."""
    bench = make_bench(tmp_path_factory.mktemp("whole"))
    fork(bench, *NEW).succeeds()
    return bench.run()


def limit_files(trainer, size):
    resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_a_disk_that_is_full_for_a_while_costs_a_warning_and_no_row(bench):
    trainer = fork(bench, *NEW, *FOREVER, *options("training.log_every=1"))
    run = bench.run()
    wait_until(checkpoint(run, SAVE_EVERY).exists, trainer)
    # soon not even a row of metrics fits
    limit_files(trainer, 20_000)
    wait_until(lambda: "warning: nothing was saved at step" in trainer.errors, trainer)
    last_good = max(checkpoints.steps_present(run / "checkpoints"))
    wait_until(lambda: trainer.errors.count("warning: nothing was saved at step") > 12, trainer)
    assert "File too large" in trainer.errors
    assert checkpoints.newest_good(run / "checkpoints").step == last_good
    written = len(rows(run))
    assert written < 40
    limit_files(trainer, resource.RLIM_INFINITY)
    wait_until(lambda: max(checkpoints.steps_present(run / "checkpoints")) > last_good + 40, trainer)
    trainer.send(SIGTERM)
    assert trainer.exit_code() == 143
    logged = read_metrics(run / "metrics.jsonl")
    assert len(logged.rows) > written
    assert [entry.row.step for entry in logged.rows] == list(range(1, status(run)["step"] + 1))
    # where the limit fell in the middle of a line
    assert logged.unreadable_lines <= 1
    assert leftovers(run) == []


def state_now(bench):
    paths = open_run(bench.runs, "run-1").paths
    return observe(paths, read_status(paths)).state


def test_a_final_save_that_fails_is_no_completed_run(bench, whole):
    ended = fork(bench, *NEW, moment=FullDisk(event="StepDone", step=STEPS, file_bytes=50_000))
    assert ended.exit_code() == 6
    assert "error: cannot write runs/run-1/checkpoints/.staging-step-000012" in ended.errors
    assert (status(bench.run())["state"], status(bench.run())["exit_code"]) == ("failed", 6)
    assert checkpoints.steps_present(bench.run() / "checkpoints") == (4, 8)
    assert leftovers(bench.run()) == []
    fork(bench, *RESUME).succeeds()
    assert_same_training(bench.run(), whole)


def test_a_status_that_cannot_be_written_is_no_completed_run(bench, whole):
    ended = fork(bench, *NEW, moment=FullDisk(event="CheckpointSaved", step=STEPS, file_bytes=50))
    assert ended.exit_code() == 6
    assert status(bench.run())["state"] == "running"
    assert state_now(bench) == "crashed"
    fork(bench, *RESUME).succeeds()
    assert state_now(bench) == "completed"
    assert_same_training(bench.run(), whole)


def test_a_step_longer_than_the_time_to_stop_is_left_unsaved(tmp_path):
    # a step of some ten seconds
    slow = PRESET.replace("batch_size = 8", "batch_size = 400").replace("channels = 32", "channels = 256")
    bench = make_bench(tmp_path, slow)
    trainer = fork(bench, *NEW, *options("training.stop_within_seconds=2"))
    wait_until(lambda: "training run-1 on cpu" in trainer.errors, trainer)
    asked_at = time.monotonic()
    trainer.send(SIGTERM)
    assert trainer.exit_code() == 143
    assert time.monotonic() - asked_at < 3
    said = status(bench.run())
    assert (said["state"], said["exit_code"], said["step"]) == ("stopped", 143, 0)
    assert said["reason"] == "not saved within the 2 s of training.stop_within_seconds"
    assert "leaving at once (not saved within the 2 s of training.stop_within_seconds)" in trainer.errors


def test_milestones_and_pins_outlive_the_newest_ones(bench):
    settings = options("training.save_every=1", "training.keep_last=2", "training.keep_every=5")
    paused = Moment(event="SaveBegun", step=3, signal_number=SIGTERM)
    assert fork(bench, *NEW, *settings, moment=paused).exit_code() == 143
    assert checkpoints.steps_present(bench.run() / "checkpoints") == (3, 4)
    run = open_run(bench.runs, "run-1")
    write_annotations(run.paths, Annotations(name="", pinned_steps=(3,)))
    fork(bench, *RESUME).succeeds()
    assert checkpoints.steps_present(bench.run() / "checkpoints") == (3, 5, 10, 11, 12)


def test_annotations_that_cannot_be_read_cost_no_checkpoint(bench):
    settings = options("training.save_every=1", "training.keep_last=2")
    paused = Moment(event="SaveBegun", step=3, signal_number=SIGTERM)
    assert fork(bench, *NEW, *settings, moment=paused).exit_code() == 143
    (bench.run() / "annotations.json").write_text("{")
    fork(bench, *RESUME).succeeds()
    assert checkpoints.steps_present(bench.run() / "checkpoints") == tuple(range(3, STEPS + 1))


def test_two_ranks_stop_together_within_the_time_also_when_one_alone_was_asked(bench, whole):
    ranks = fork_ranks(bench, 2, *NEW, *FOREVER, *options("training.stop_within_seconds=30"))
    wait_until(checkpoint(bench.run(), SAVE_EVERY).exists, ranks[0])
    ranks[1].send(SIGTERM)
    assert [rank.exit_code() for rank in ranks] == [143, 143]
    said = json.loads((bench.run() / "status.json").read_text())
    assert checkpoints.newest_good(bench.run() / "checkpoints").step == said["step"]
