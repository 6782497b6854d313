"""`train --from`: a new run that starts from the weights of another one, and remembers which."""

from __future__ import annotations

import json
import shutil
from signal import SIGKILL, SIGTERM

import pytest
import torch

from diffcli.training import checkpoints
from runs_in_processes import (
    NEW,
    Moment,
    assert_same_training,
    checkpoint,
    fork,
    make_bench,
    options,
    rows,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    bench = make_bench(tmp_path_factory.mktemp("parent"))
    fork(bench, *NEW, "--name", "parent").succeeds()
    return bench


@pytest.fixture
def bench(trained, tmp_path):
    shutil.copytree(trained.directory, tmp_path, dirs_exist_ok=True)
    return type(trained)(directory=tmp_path)


FROM = ("train", "--device", "cpu", "--from")


def tensors(run, step, name):
    return checkpoints.read_tensors(checkpoint(run, step), name)


def record(run):
    return json.loads((run / "run.json").read_text())


def test_a_new_run_starts_from_the_weights_and_names_its_parent(bench):
    settings = options("training.lr=2e-4", "training.ema_rates=[0.99, 0.5]", "training.save_every=6")
    child = fork(bench, *FROM, "parent@8", *settings, "--seed", "5").succeeds()
    assert "run-2 starts from runs/run-1/checkpoints/step-000008" in child.errors
    parent, run = bench.run(1), bench.run(2)
    assert record(run)["parent"] == {"run_id": "run-1", "step": 8}
    assert record(run)["config"]["training"]["lr"] == 2e-4
    assert record(run)["config"]["model"] == record(parent)["config"]["model"]
    assert record(parent)["parent"] is None

    start = {name: tensors(run, 0, name) for name in ("model", "ema-0.99", "ema-0.5", "optimizer")}
    for name, expected in (("model", "model"), ("ema-0.99", "ema-0.99"), ("ema-0.5", "model")):
        for key, tensor in tensors(parent, 8, expected).items():
            assert torch.equal(start[name][key], tensor), (name, key)
    assert all(not moment.any() for moment in start["optimizer"].values())
    assert checkpoints.read_counters(checkpoint(run, 0))["images_seen"] == 0
    # it goes on from where its parent was, not from noise
    assert rows(run)[0].mse.overall < rows(parent)[0].mse.overall


def test_without_a_step_the_newest_checkpoint_is_taken(bench):
    fork(bench, *FROM, "run-1", "--steps", "4").succeeds()
    assert record(bench.run(2))["parent"] == {"run_id": "run-1", "step": 12}


@pytest.mark.parametrize(
    "moment",
    [
        Moment(event="StepDone", step=2, signal_number=SIGKILL),
        Moment(event="StepDone", step=7, signal_number=SIGTERM),
    ],
    ids=lambda moment: f"{moment.signal_number.name} at step {moment.step}",
)
def test_it_is_stopped_and_resumed_like_any_run_even_without_its_parent(moment, bench):
    fork(bench, *FROM, "run-1").succeeds()
    fork(bench, *FROM, "run-1", moment=moment).exit_code()
    shutil.rmtree(bench.run(1))
    fork(bench, "train", "--resume", "run-3", "--device", "cpu").succeeds()
    assert_same_training(bench.run(3), bench.run(2))


def test_killed_before_its_first_save_it_looks_for_its_parent_again(bench):
    fork(bench, *FROM, "run-1").succeeds()
    moment = Moment(event="StepDone", step=2, signal_number=SIGKILL)
    fork(bench, *FROM, "run-1", moment=moment).exit_code()
    shutil.rmtree(bench.run(3) / "checkpoints")
    resume = ("train", "--resume", "run-3", "--device", "cpu")
    bench.run(1).rename(bench.runs / "elsewhere")
    refused = fork(bench, *resume)
    assert refused.exit_code() == 3
    assert "there is no run 'run-1'" in refused.errors
    (bench.runs / "elsewhere").rename(bench.run(1))
    fork(bench, *resume).succeeds()
    assert_same_training(bench.run(3), bench.run(2))


def test_what_the_weights_mean_cannot_change(bench):
    settings = options(
        "model.channels=64",
        "diffusion.schedule=linear",
        "diffusion.steps=500",
        "diffusion.predict=x_start",
        "model.classes=0",
        "data.resolution=16",
        "training.lr=3e-4",
        "model.dropout=0.3",
        "data.flip=false",
    )
    refused = fork(bench, *FROM, "parent", *settings)
    assert refused.exit_code() == 2
    for setting in ("model.channels = 64", "diffusion.schedule", "diffusion.steps = 500"):
        assert setting in refused.errors
    for setting in ("diffusion.predict", "model.classes = 0", "data.resolution = 16"):
        assert setting in refused.errors
    for setting in ("training.lr =", "model.dropout =", "data.flip ="):
        assert setting not in refused.errors
    assert "cannot differ from run-1's" in refused.errors
    assert not bench.run(2).exists()


WRONG = {
    "no such run": (("nobody",), 3, "there is no run 'nobody'"),
    "no such step": (("run-1@5",), 3, "there is no checkpoint of step 5"),
    "a preset as well": (("run-1", "--preset", "./tiny.toml"), 2, "say what to train"),
    "another dataset that is not there": (("run-1", "--set", "data.name=cats"), 3, "cats"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_parents_are_named(wrong, bench):
    arguments, code, message = WRONG[wrong]
    refused = fork(bench, *FROM, *arguments)
    assert refused.exit_code() == code
    assert message in refused.errors
    assert not bench.run(2).exists()


def test_a_damaged_newest_checkpoint_of_the_parent_is_named(bench):
    (checkpoint(bench.run(1), 12) / "model.safetensors").write_bytes(b"")
    child = fork(bench, *FROM, "run-1", "--steps", "4").succeeds()
    assert "warning: a newer checkpoint is damaged and not used: " in child.errors
    assert record(bench.run(2))["parent"]["step"] == 8
    refused = fork(bench, *FROM, "run-1@12")
    assert refused.exit_code() == 5
