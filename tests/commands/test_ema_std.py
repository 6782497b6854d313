"""`--ema-std`: any width of the moving average, chosen after training."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from diffcli.commands.run_config import current_config
from diffcli.commands.weights import load_network
from diffcli.registry.create import open_run
from diffcli.training import checkpoints
from diffcli.workers import Workers, WorkersSettings
from runs_in_processes import NEW, Bench, fork, fork_ranks, make_bench

SAMPLE = ("sample", "run-1", "--num", "6", "--ddim", "4", "--device", "cpu")
SNAPSHOTS = ("--set", "training.ema_snapshot_every=4", "--set", "training.steps=20")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Bench:
    """run-1 keeps snapshots of the default widths, run-2 trains alike and keeps others, run-3 keeps none."""
    bench = make_bench(tmp_path_factory.mktemp("ema-std"))
    fork(bench, *NEW, *SNAPSHOTS).succeeds()
    fork(bench, *NEW, *SNAPSHOTS, "--set", "training.ema_stds=[0.08, 0.15]").succeeds()
    fork(bench, *NEW).succeeds()
    return bench


@pytest.fixture
def bench(trained, tmp_path) -> Bench:
    """A copy of the runs to do harm to."""
    shutil.copytree(trained.directory, tmp_path / "copy")
    return Bench(directory=tmp_path / "copy")


def drawn(bench, *arguments):
    """The images of an archive, its record, and what was said on stderr."""
    process = fork(bench, *SAMPLE, *arguments).succeeds()
    paths = dict(line.split("\t") for line in process.output.splitlines())
    with np.load(bench.directory / paths["archive"]) as archive:
        images = archive["arr_0"]
    return images, json.loads((bench.directory / paths["record"]).read_text()), process.errors


def network_weights(bench, number: int, std: float):
    """The weights that `--ema-std` gives the newest snapshot's step of a run."""
    run = open_run(bench.runs, f"run-{number}")
    workers = Workers(WorkersSettings(device="cpu", precision="fp32", threads=1, deterministic=False))
    loaded = load_network(run, current_config(run), step=None, ema="first", ema_std=std, workers=workers)
    return loaded.network.state_dict(), loaded.average.predicted_relative_error


def damage(bench, step):
    path = checkpoints.directory_of(bench.run() / "ema-snapshots", step) / "std-0.1.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def test_the_record_and_stderr_say_what_was_reconstructed_from_what(trained):
    images, record, said = drawn(trained, "--ema-std", "0.08")
    assert (record["checkpoint"], record["weights"]) == (20, "ema-std-0.08")
    average = record["average"]
    assert 0.005 < average.pop("predicted_relative_error") < 0.05
    assert average == {"std": 0.08, "snapshot_steps": [20, 16, 12, 8, 4], "snapshot_stds": [0.05, 0.1]}
    assert "EMA of width 0.08 at step 20, from 10 stored averages of widths 0.05, 0.1: predicted" in said
    assert "warning" not in said
    again, _, said = drawn(trained, "--ema-std", "0.08")
    assert "already there" in said
    assert np.array_equal(images, again)
    stored, record, said = drawn(trained, "--ema-std", "0.1")
    assert record["average"]["predicted_relative_error"] == 0
    assert "EMA of width 0.1 at step 20, as it was stored" in said
    assert not np.array_equal(images, stored)
    assert drawn(trained)[1]["average"] is None


def test_it_is_the_average_that_the_same_training_would_have_tracked(trained):
    reconstructed, predicted = network_weights(trained, 1, 0.08)
    direct, exact = network_weights(trained, 2, 0.08)
    nearest, _ = network_weights(trained, 1, 0.1)
    assert exact == 0 < predicted
    distances = {
        name: sum(float((weights[key] - direct[key]).square().sum()) for key in direct) ** 0.5
        for name, weights in (("reconstructed", reconstructed), ("nearest", nearest))
    }
    # 7 per cent here, of 20 steps with 5 snapshots
    assert 0 < distances["reconstructed"] < 0.1 * distances["nearest"]


def test_a_stored_average_is_used_bit_by_bit(trained):
    weights, _ = network_weights(trained, 1, 0.05)
    snapshot = checkpoints.directory_of(trained.run() / "ema-snapshots", 20)
    stored = checkpoints.read_tensors(snapshot, "std-0.05")
    assert all(np.array_equal(weights[key].numpy(), stored[key].numpy()) for key in stored)


def test_the_step_can_be_chosen_and_must_be_one_the_run_knows(trained):
    _, record, _ = drawn(trained, "--ema-std", "0.08", "--checkpoint", "12")
    assert record["average"]["snapshot_steps"] == [12, 8, 4]
    assert record["checkpoint"] == 12
    process = fork(trained, *SAMPLE, "--ema-std", "0.08", "--checkpoint", "13")
    assert process.exit_code() == 3
    assert "snapshots: 4, 8, 12, 16, 20" in process.errors


def test_snapshots_serve_after_the_checkpoints_are_gone(bench):
    expected, _, _ = drawn(bench, "--ema-std", "0.08", "--checkpoint", "4", "--name", "before")
    shutil.rmtree(bench.run() / "checkpoints")
    assert fork(bench, *SAMPLE).exit_code() == 3
    images, _, _ = drawn(bench, "--ema-std", "0.08", "--checkpoint", "4", "--name", "after", "--force")
    assert np.array_equal(images, expected)


def test_a_checkpoint_newer_than_all_snapshots_is_told(bench):
    for step in (16, 20):
        shutil.rmtree(checkpoints.directory_of(bench.run() / "ema-snapshots", step))
    _, record, said = drawn(bench, "--ema-std", "0.08")
    assert record["checkpoint"] == 12
    assert "the newest checkpoint is of step 20" in said
    _, record, said = drawn(bench, "--ema-std", "0.08", "--checkpoint", "20")
    assert record["average"]["predicted_relative_error"] > 0.3
    assert "--checkpoint 12 is the step of a snapshot" in said


def test_a_damaged_snapshot_is_left_out_loudly(bench):
    damage(bench, 16)
    _, record, said = drawn(bench, "--ema-std", "0.08")
    assert "step-000016" in said
    assert "left out" in said
    assert record["average"]["snapshot_steps"] == [20, 12, 8, 4]
    for step in (4, 8, 12, 20):
        damage(bench, step)
    process = fork(bench, *SAMPLE, "--ema-std", "0.08")
    assert process.exit_code() == 5
    assert "none of the 5 EMA snapshots" in process.errors


def test_a_width_far_from_the_stored_ones_is_warned_of(trained):
    _, record, said = drawn(trained, "--ema-std", "0.02")
    assert record["average"]["predicted_relative_error"] > 0.05
    assert "warning: that error is large; widths from 0.05 to 0.1, or near them, fit better" in said


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--ema-std", "0.4"), 2, "at most 0.2886"),
        (("--ema-std", "0"), 2, "more than 0"),
        (("--ema-std", "nan"), 2, "relative width nan"),
        (("--ema-std", "0.08", "--ema", "0.9"), 2, "exclude each other"),
        (("--ema-std", "0.08", "--set", "sampling.ema=none"), 2, "exclude each other"),
    ],
)
def test_what_cannot_be_meant_is_refused(trained, arguments, code, told):
    process = fork(trained, *SAMPLE, *arguments)
    assert process.exit_code() == code
    assert told in process.errors


def test_a_run_without_snapshots_says_how_to_have_them(trained):
    process = fork(trained, "sample", "run-3", "--ema-std", "0.08", "--device", "cpu")
    assert process.exit_code() == 3
    assert "training.ema_snapshot_every" in process.errors


def test_two_processes_draw_what_one_draws(trained):
    alone, _, _ = drawn(trained, "--ema-std", "0.07", "--batch-size", "3", "--name", "alone")
    arguments = (*SAMPLE, "--ema-std", "0.07", "--batch-size", "3", "--name", "together", "--force")
    ranks = [rank.succeeds() for rank in fork_ranks(trained, 2, *arguments)]
    with np.load(trained.run() / "samples" / "together" / "samples_6x8x8x1.npz") as archive:
        assert np.array_equal(archive["arr_0"], alone)
    assert ["EMA of width 0.07" in rank.errors for rank in ranks] == [True, False]


def test_eval_takes_it_too(trained):
    arguments = ("eval", "run-1", "--nll", "--num", "4", "--timesteps", "5", "--device", "cpu")
    process = fork(trained, *arguments, "--ema-std", "0.08", "--json").succeeds()
    record = json.loads(process.output)
    assert (record["model"]["checkpoint"], record["model"]["weights"]) == (20, "ema-std-0.08")
    assert record["model"]["average"]["snapshot_steps"] == [20, 16, 12, 8, 4]
    assert "predicted relative error" in process.errors
    assert fork(trained, *arguments, "--ema-std", "0.08", "--ema", "0.9").exit_code() == 2
