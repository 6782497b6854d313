"""Samples that a training is measured by: the numbers of `eval`, the same every time, and no trace left."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from signal import SIGINT, SIGKILL

import numpy as np
import pytest
import torch
from PIL import Image

from diffcli.config.sections import DataConfig
from diffcli.data.cropping import centered
from inception_formula import formula_weights
from latent_runs import changed, drawing
from packed_datasets import write_dataset
from runs_in_processes import (
    NEW,
    RESUME,
    STEPS,
    Moment,
    assert_same_training,
    attempts,
    checkpoint,
    content,
    fork,
    fork_ranks,
    make_bench,
    options,
    rows,
    status,
)
from runs_on_disk import run_of_a_network

EVERY_6 = options("training.eval_every=6", "training.eval_samples=41", "training.eval_steps=4")
EVALUATION = ("--features", "pixels", "--num", "41", "--ddim", "4", "--device", "cpu")


def numbers(row):
    return {metric.name: metric.value for metric in row.samples}


def evaluated(bench, *arguments):
    """The numbers of `eval` by name."""
    line = ("eval", "run-1", *EVALUATION, *arguments, "--json")
    found = json.loads(fork(bench, *line).succeeds().output)
    return {metric["name"]: metric["value"] for metric in found["metrics"]}


def statistics(bench, name="digits"):
    return sorted(path.name for path in (bench.directory / "data" / name).glob(".statistics/*"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run whose samples were measured every six steps."""
    bench = make_bench(tmp_path_factory.mktemp("measured"))
    trained = fork(bench, *NEW, *EVERY_6).succeeds()
    assert "fd_pixels" in trained.errors
    return bench


# ---- the numbers ----


def test_the_numbers_are_those_of_eval_from_the_same_statistics(measured):
    kept = statistics(measured)
    assert len(kept) == 1
    logged = numbers(rows(measured.run())[-1])
    told = evaluated(measured, "--metrics", "fd,kd")
    assert statistics(measured) == kept
    # images of another batch size differ by rounding
    assert logged["fd_pixels"] == pytest.approx(told["fd_pixels"], rel=1e-3)
    # of other subsets of the reference
    assert logged["kd_pixels"] == pytest.approx(told["kd_pixels"], rel=0.05)
    shown = fork(measured, "runs", "show", "run-1").succeeds().output
    assert f"fd_pixels\t{logged['fd_pixels']:.4g}" in shown


def test_without_an_average_they_are_of_the_raw_weights_and_of_images_as_trained(bench):
    raw = options("training.ema_rates=[]", "sampling.ema=none", "model.attention_resolutions=[4]")
    fork(bench, *NEW, *EVERY_6, *raw, *options("data.resolution=4")).succeeds()
    record = attempts(bench.run())[0]["samples"]
    assert (record["weights"], record["reference"]["height"]) == ("model", 4)
    stored = np.load(bench.directory / "data/digits/train/images.npy")
    small = centered(stored, DataConfig(resolution=4, channels=1))
    write_dataset(bench.directory / "data/small/train", small, None, ())
    told = evaluated(bench, "--metrics", "fd", "--reference", "small/train")
    assert numbers(rows(bench.run())[-1])["fd_pixels"] == pytest.approx(told["fd_pixels"], rel=1e-3)


def test_a_classifier_of_ours_can_look_at_them(bench):
    reader = changed(drawing(8), model={"kind": "classifier"}, data={"name": "digits"})
    run_of_a_network(bench.runs, reader, "reader", class_names=tuple("0123456789"))
    fork(bench, *NEW, *EVERY_6, *options("training.eval_features=run-1"), "--steps", "6").succeeds()
    assert set(numbers(rows(bench.run(2))[-1])) == {"fd_run-1", "kd_run-1"}
    other = (*options("training.eval_features=pixels"), "--steps", "7")
    resumed = fork(bench, "train", "--resume", "run-2", "--device", "cpu", *other).succeeds()
    assert "compared by other features than before (run-1 -> pixels)" in resumed.errors
    assert set(numbers(rows(bench.run(2))[-1])) == {"fd_pixels", "kd_pixels"}


def test_an_attempt_says_what_it_measures_by(measured):
    record = attempts(measured.run())[0]["samples"]
    assert (record["count"], record["steps"], record["seed"]) == (41, 4, 0)
    assert (record["weights"], record["extractor"]["name"]) == ("ema-0.9", "pixels")
    dataset = json.loads((measured.directory / "data/digits/train/dataset.json").read_text())
    assert record["reference"]["content_hash"] == dataset["content_hash"]
    assert record["reference"]["count"] == 1500


# ---- what a training has of it ----


def test_a_training_that_is_measured_comes_to_the_same_bits(measured, bench):
    fork(bench, *NEW).succeeds()
    assert content(checkpoint(bench.run(), STEPS)) == content(checkpoint(measured.run(), STEPS))
    assert [row.step for row in rows(measured.run()) if row.samples] == [6, 12]
    assert [dataclasses.replace(row, samples=()) for row in rows(measured.run())] == rows(bench.run())


def test_samples_are_measured_beside_a_validation(measured, bench):
    fork(bench, *NEW, *EVERY_6, *options("data.validation_split=test", "training.eval_images=20")).succeeds()
    assert [row.step for row in rows(bench.run()) if row.val] == [6, 12]
    assert [dataclasses.replace(row, val=None) for row in rows(bench.run())] == rows(measured.run())


def test_a_kill_between_two_measurements_and_a_resume_repeat_them(measured, bench):
    moment = Moment(event="StepDone", step=8, signal_number=SIGKILL)
    assert fork(bench, *NEW, *EVERY_6, moment=moment).exit_code() == -SIGKILL
    resumed = fork(bench, *RESUME).succeeds()
    assert "measuring the training images" not in resumed.errors
    assert_same_training(bench.run(), measured.run())


def test_a_resume_may_measure_otherwise(measured, tmp_path):
    place = make_bench(tmp_path)
    shutil.copytree(measured.runs, place.runs)
    settings = options("training.eval_samples=50", "training.eval_steps=3", "training.eval_every=3")
    more = ("--data", "data/digits/train", "--steps", "15")
    fork(place, *RESUME, *more, *settings).succeeds()
    assert [row.step for row in rows(place.run()) if row.samples] == [6, 12, 15]
    assert [attempt["samples"]["count"] for attempt in attempts(place.run())] == [41, 50]
    fork(
        place, *RESUME, "--steps", "18", *options("training.eval_samples=0", "training.eval_every=0")
    ).succeeds()
    assert attempts(place.run())[-1]["samples"] is None


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    """The same without dropout, in two processes."""
    bench = make_bench(tmp_path_factory.mktemp("by-two"))
    ranks = fork_ranks(bench, 2, *NEW, *EVERY_6, *options("model.dropout=0"))
    assert [rank.exit_code() for rank in ranks] == [0, 0], ranks[0].errors
    return bench


def test_two_processes_measure_what_one_does(by_two, bench):
    settings = options("model.dropout=0", "training.microbatch=3")
    fork(bench, *NEW, *EVERY_6, *settings).succeeds()
    for alone, together in zip(rows(bench.run()), rows(by_two.run()), strict=True):
        assert numbers(together) == pytest.approx(numbers(alone), rel=1e-3)


def test_two_processes_come_to_the_same_bits_with_and_without(by_two, bench):
    ranks = fork_ranks(bench, 2, *NEW, *options("model.dropout=0"))
    assert [rank.exit_code() for rank in ranks] == [0, 0], ranks[0].errors
    assert content(checkpoint(bench.run(), STEPS)) == content(checkpoint(by_two.run(), STEPS))


def test_two_processes_that_are_stopped_resume_bitwise(by_two, bench):
    settings = options("model.dropout=0")
    moment = Moment(event="StepDone", step=7, signal_number=SIGINT)
    stopped = fork_ranks(bench, 2, *NEW, *EVERY_6, *settings, moment=moment)
    assert [rank.exit_code() for rank in stopped] == [130, 130]
    resumed = fork_ranks(bench, 2, *RESUME)
    assert [rank.exit_code() for rank in resumed] == [0, 0]
    assert_same_training(bench.run(), by_two.run())


def test_fewer_samples_than_processes_will_do(bench):
    settings = options("training.eval_every=6", "training.eval_samples=2", "training.eval_steps=2")
    ranks = fork_ranks(bench, 3, *NEW, *settings, "--steps", "6")
    assert [rank.exit_code() for rank in ranks] == [0, 0, 0], ranks[0].errors
    assert numbers(rows(bench.run())[-1])["fd_pixels"] > 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class AsTheReferenceIsMeasured:
    """A process sends itself a signal as it begins to look at the training images."""

    signal_number: int

    def arm(self):
        """Lay the trap."""
        from diffcli.console import training

        number = self.signal_number

        class ActingScreen(training.TrainingScreen):
            def notice(self, text):
                super().notice(text)
                if text.startswith("measuring the training images"):
                    os.kill(os.getpid(), number)
                    # until the thread that listens has seen it
                    time.sleep(0.2)

        training.TrainingScreen = ActingScreen


def test_a_stop_is_heeded_while_the_training_images_are_measured(measured, bench):
    stopped = fork(bench, *NEW, *EVERY_6, moment=AsTheReferenceIsMeasured(signal_number=SIGINT))
    assert stopped.exit_code() == 130
    assert "diffcli train --resume run-1" in stopped.errors
    assert status(bench.run())["state"] == "stopped"
    assert statistics(bench) == []
    fork(bench, *RESUME).succeeds()
    assert not list((bench.run() / "evals").glob(".*"))
    assert_same_training(bench.run(), measured.run())


def photos(bench, count):
    """Write a folder of digits."""
    directory = bench.directory / "photos"
    directory.mkdir()
    for number, image in enumerate(np.load(bench.directory / "data/digits/train/images.npy")[:count]):
        Image.fromarray(image[..., 0]).save(directory / f"a_{number}.png")


def test_inception_looks_at_them_under_its_own_names(bench):
    photos(bench, 5)
    torch.save(formula_weights(trained_gamma=True), bench.directory / "weights.pth")
    settings = options("model.classes=0", "training.eval_every=6", "training.eval_samples=3")
    few = options("training.eval_steps=2", "training.eval_features=inception")
    line = (*NEW, "--data", "photos", *settings, *few, "--steps", "6")
    fork(bench, *line, environment={"DIFFCLI_INCEPTION": "weights.pth"}).succeeds()
    found = numbers(rows(bench.run())[-1])
    assert set(found) == {"fid", "kid"}
    assert found["fid"] > 0
    extractor = attempts(bench.run())[0]["samples"]["extractor"]
    assert (extractor["published"], len(extractor["sha256"])) == (False, 64)


def test_a_plain_folder_is_measured_at_each_start(bench):
    photos(bench, 20)
    settings = options("model.classes=0")
    fork(bench, *NEW, "--data", "photos", *EVERY_6, *settings, "--steps", "6").succeeds()
    reference = attempts(bench.run())[0]["samples"]["reference"]
    assert (reference["kind"], reference["count"], reference["weak_hash"]) == ("folder", 20, True)
    assert not list(bench.directory.rglob(".statistics"))
    assert numbers(rows(bench.run())[-1])["fd_pixels"] > 0


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_draws_as_it_trains(measured, bench, precision):
    fork(bench, *NEW, *EVERY_6, "--steps", "6", "--precision", precision).succeeds()
    single = next(row for row in rows(measured.run()) if row.samples)
    assert numbers(rows(bench.run())[-1]) == pytest.approx(numbers(single), rel=0.1)


# ---- what does not suit ----


@pytest.mark.parametrize(
    ("settings", "environment", "code", "told"),
    [
        (
            ["training.eval_features=inception"],
            {"DIFFCLI_INCEPTION": "nowhere.pth"},
            3,
            ["nowhere.pth", "training.eval_features = inception", "training.eval_features = pixels"],
        ),
        (["training.eval_features=run-7"], {}, 3, ["run-7", "training.eval_features is inception, pixels"]),
    ],
)
def test_what_is_missing_is_told_before_there_is_a_run(bench, settings, environment, code, told):
    refused = fork(bench, *NEW, *EVERY_6, *options(*settings), environment=environment)
    assert refused.exit_code() == code
    for words in told:
        assert words in refused.errors
    assert "Traceback" not in refused.errors
    assert not list(bench.runs.glob("run-*"))
