"""Validation: the same images, timesteps and noise every time and in all processes, and no trace left."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from signal import SIGINT, SIGKILL

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from diffcli.config.sections import DataConfig, DiffusionConfig, ModelConfig, RunConfig, TrainingConfig
from diffcli.data.dataset import open_dataset
from diffcli.data.sources.digits import DigitsSource
from diffcli.data.validation import held_out_images
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.process import q_sample
from diffcli.images.conversion import from_uint8
from diffcli.models.conditioning import Conditioning
from diffcli.randomness.streams import Stream, normal
from diffcli.training.objective import ClassificationObjective, Examples
from diffcli.training.validation import VALIDATION_SEED, HeldOut, Validation, spread_timesteps
from diffcli.workers import Workers, WorkersSettings
from packed_datasets import write_dataset
from runs_in_processes import (
    NEW,
    RESUME,
    STEPS,
    Moment,
    assert_same_training,
    checkpoint,
    content,
    fork,
    fork_ranks,
    make_bench,
    options,
    rows,
)

EVERY_3 = ("--set", "training.eval_every=3", "--set", "data.validation_split=test")
EVERY_6 = ("--set", "training.eval_every=6", "--set", "data.validation_split=test")


# ---- what is measured ----


@given(count=st.integers(1, 3000), steps=st.integers(2, 5000), cut=st.integers(0, 3000))
def test_timesteps_are_spread_evenly_and_belong_to_their_places(count, steps, cut):
    t = spread_timesteps(range(count), count, steps)
    assert torch.equal(t, t.sort().values)
    assert 0 <= int(t[0]) <= int(t[-1]) < steps
    # each in its part of the chain, or between the same two timesteps where there are more places than those
    edges = torch.arange(count + 1) * steps / count
    assert (t >= edges[:-1].floor()).all()
    assert (t <= edges[1:]).all()
    cut = min(cut, count)
    parts = [spread_timesteps(part, count, steps) for part in (range(cut), range(cut, count))]
    assert torch.equal(torch.cat(parts), t)


DIGITS = RunConfig(
    data=DataConfig(name="digits", validation_split="test", resolution=8, channels=1),
    model=ModelConfig(kind="classifier", classes=10),
    diffusion=DiffusionConfig(steps=40),
    training=TrainingConfig(eval_every=1, log_every=1, eval_images=50),
)


def test_the_images_are_a_fixed_choice_of_the_split_and_more_of_them_hold_fewer(bench):
    training = open_dataset(DIGITS.data, home=bench.directory / "data", directory=None)
    fifty = held_out_images(training, DIGITS, seed=VALIDATION_SEED)
    assert fifty.count == 50
    # not the first ones, which are of few classes in a sorted dataset
    assert fifty.indices.tolist() != sorted(fifty.indices.tolist())
    more = dataclasses.replace(
        DIGITS, training=dataclasses.replace(DIGITS.training, eval_images=1000, seed=9)
    )
    everything = held_out_images(training, more, seed=VALIDATION_SEED)
    assert sorted(everything.indices.tolist()) == list(range(297))
    assert torch.equal(everything.indices[:50], fifty.indices)
    real = DigitsSource("test")
    batch = fifty.batch(range(7, 19))
    chosen = fifty.indices[7:19].numpy()
    assert np.array_equal(batch.images.numpy(), real.images[chosen])
    assert np.array_equal(batch.labels.numpy(), real.labels[chosen])
    assert not batch.flips.any()


class Reader(nn.Module):
    """Logits with dropout, which a measurement must not see."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 10)

    def forward(self, x, t):
        pixels = nn.functional.dropout(x.flatten(1), 0.5, self.training)
        return self.layer(pixels) + t[:, None] / 1000


@pytest.mark.parametrize("noisy", [True, False])
def test_the_means_are_those_of_all_images_whatever_the_microbatch(bench, noisy):
    AcceleratorState._reset_state(reset_partial_state=True)
    training = open_dataset(DIGITS.data, home=bench.directory / "data", directory=None)
    images = held_out_images(training, DIGITS, seed=VALIDATION_SEED)
    diffusion, network = build_diffusion(DIGITS.diffusion), Reader()

    def read(places):
        batch = images.batch(places)
        examples = Examples(
            x_start=from_uint8(batch.images.permute(0, 3, 1, 2)),
            conditioning=Conditioning(),
            labels=batch.labels,
        )
        return HeldOut(examples=examples, indices=images.indices[places.start : places.stop])

    def measured(microbatch):
        return Validation(
            network=network.train(),
            objective=ClassificationObjective(diffusion),
            workers=Workers(WorkersSettings(device="cpu", precision="fp32", threads=1, deterministic=False)),
            read=read,
            count=50,
            microbatch=microbatch,
            noisy=noisy,
        ).measure()

    generator = torch.get_rng_state()
    whole = measured(50)
    assert torch.equal(torch.get_rng_state(), generator)
    assert not network.layer.weight.grad
    # by hand
    held_out = read(range(50))
    x, t = held_out.examples.x_start, torch.zeros(50, dtype=torch.int64)
    if noisy:
        t = spread_timesteps(range(50), 50, 40)
        noise = normal(VALIDATION_SEED, Stream.VALIDATION_NOISE, images.indices, (1, 8, 8), step=0)
        x = q_sample(diffusion, x, t, noise)
    with torch.no_grad():
        logits = network.eval()(x, t)
    right = (logits.argmax(dim=1) == held_out.examples.labels).double()
    loss = nn.functional.cross_entropy(logits, held_out.examples.labels)
    assert whole.loss.overall == pytest.approx(float(loss), rel=1e-6)
    assert whole.acc1.overall == pytest.approx(float(right.mean()))
    assert whole.acc1.quartiles[0] == pytest.approx(float(right[t < 10].mean()))
    if not noisy:
        assert whole.acc1.quartiles[1:] == whole.loss.quartiles[1:] == (None, None, None)
    for microbatch in (1, 7):
        parts = measured(microbatch)
        assert parts.loss.overall == pytest.approx(whole.loss.overall, rel=1e-6)
        assert parts.acc5 == whole.acc5


# ---- what a training has of it ----


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A denoising run that was measured every three steps."""
    bench = make_bench(tmp_path_factory.mktemp("measured"))
    fork(bench, *NEW, *EVERY_3).succeeds()
    assert [row.step for row in rows(bench.run()) if row.val] == [3, 6, 9, 12]
    return bench


def test_a_training_that_is_measured_comes_to_the_same_bits(measured, bench):
    fork(bench, *NEW).succeeds()
    assert content(checkpoint(bench.run(), STEPS)) == content(checkpoint(measured.run(), STEPS))
    without = [dataclasses.replace(row, val=None) for row in rows(measured.run())]
    assert without == rows(bench.run())


def test_rarer_measurements_give_the_same_numbers_and_the_last_step_has_some(measured, bench):
    fork(bench, *NEW, *EVERY_6, "--set", "training.steps=11").succeeds()
    often = {row.step: row for row in rows(measured.run())}
    rarely = {row.step: row for row in rows(bench.run())}
    assert [step for step, row in rarely.items() if row.val] == [6, 11]
    assert rarely[6] == often[6]


def test_a_diffusion_model_is_measured_by_its_own_terms(measured):
    first, last = rows(measured.run())[0].val, rows(measured.run())[-1].val
    for terms in (first, last):
        assert (terms.acc1, terms.acc5) == (None, None)
        assert terms.loss.overall == pytest.approx(terms.mse.overall + terms.vb.overall)
        assert None not in terms.loss.quartiles
    assert last.loss.overall < first.loss.overall


def test_a_kill_and_resume_repeats_the_measurements(measured, bench):
    moment = Moment(event="IntervalLogged", step=6, signal_number=SIGKILL)
    assert fork(bench, *NEW, *EVERY_3, moment=moment).exit_code() == -SIGKILL
    fork(bench, *RESUME).succeeds()
    assert_same_training(bench.run(), measured.run())


def test_two_processes_measure_what_one_does(bench, tmp_path):
    settings = (*EVERY_3, *options("model.dropout=0", "training.eval_images=30"))
    several = make_bench(tmp_path / "several")
    one = fork(bench, *NEW, *settings)
    ranks = fork_ranks(several, 2, *NEW, *settings, *options("training.microbatch=3"))
    assert [rank.exit_code() for rank in ranks] == [0, 0], ranks[0].errors
    one.succeeds()
    for alone, together in zip(rows(bench.run()), rows(several.run()), strict=True):
        for term in ("loss", "mse", "vb"):
            expected, found = getattr(alone.val, term), getattr(together.val, term)
            assert found.overall == pytest.approx(expected.overall, rel=1e-4)
            assert found.quartiles == pytest.approx(expected.quartiles, rel=1e-3)


def test_ranks_that_are_measured_resume_bitwise(bench, tmp_path):
    whole = make_bench(tmp_path / "whole")
    settings = (*EVERY_3, *options("training.eval_images=21"))
    ranks = fork_ranks(whole, 2, *NEW, *settings)
    assert [rank.exit_code() for rank in ranks] == [0, 0], ranks[0].errors
    moment = Moment(event="StepDone", step=6, signal_number=SIGINT)
    stopped = fork_ranks(bench, 2, *NEW, *settings, moment=moment)
    assert [rank.exit_code() for rank in stopped] == [130, 130]
    resumed = fork_ranks(bench, 2, *RESUME)
    assert [rank.exit_code() for rank in resumed] == [0, 0]
    assert_same_training(bench.run(), whole.run())


def test_runs_with_other_seeds_are_measured_by_the_same_numbers(measured, tmp_path):
    place = make_bench(tmp_path)
    shutil.copytree(measured.runs, place.runs)
    # so small a rate moves no weight
    still = ("--steps", "3", *options("training.lr=1e-30", "training.lr_anneal_steps=0"))
    for seed in ("5", "6"):
        fork(place, "train", "--from", "run-1", "--device", "cpu", "--seed", seed, *still).succeeds()
    (one,), (other,) = rows(place.run(2)), rows(place.run(3))
    assert one.loss != other.loss
    assert one.val.loss.overall == pytest.approx(other.val.loss.overall, rel=1e-6)


def test_half_precision_is_measured_as_it_trains(bench):
    for number, precision in enumerate(("fp32", "bf16", "fp16"), start=1):
        fork(bench, *NEW, *EVERY_3, "--steps", "3", "--precision", precision).succeeds()
        (row,) = rows(bench.run(number))
        assert math.isfinite(row.val.loss.overall)
        assert row.val.loss.overall == pytest.approx(rows(bench.run())[0].val.loss.overall, rel=0.02)


def test_the_images_are_recorded_and_others_are_refused(measured, tmp_path):
    place = make_bench(tmp_path)
    shutil.copytree(measured.runs, place.runs)
    recorded = json.loads((place.run() / "run.json").read_text())["validation"]
    assert (recorded["count"], recorded["path"]) == (297, str(measured.directory / "data/digits/test"))
    data = ("--data", "data/digits/train")
    fork(place, *RESUME, *data, "--steps", "13").succeeds()
    file = place.directory / "data" / "digits" / "test" / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"content_hash": "0" * 64}))
    refused = fork(place, *RESUME, *data, "--steps", "14")
    assert refused.exit_code() == 2
    assert "the dataset is not the one that run-1 was measured on" in refused.errors
    fork(place, *RESUME, *data, "--steps", "14", "--set", "training.eval_every=0").succeeds()
    assert [row.step for row in rows(place.run()) if row.val] == [3, 6, 9, 12, 13]


# ---- what does not suit ----


def refusal(bench, *settings):
    """Exit code and message of a training that is refused before there is a run."""
    refused = fork(bench, *NEW, *settings)
    code = refused.exit_code()
    assert not list(bench.runs.glob("run-*"))
    return code, refused.errors


def test_what_does_not_suit_is_refused_before_there_is_a_run(bench):
    code, message = refusal(bench, *options("training.eval_every=3"))
    assert (code, "data.validation_split" in message) == (2, True)
    code, message = refusal(bench, *EVERY_3, "--set", "training.log_every=2")
    assert (code, "a multiple of training.log_every = 2" in message) == (2, True)
    code, message = refusal(bench, *options("training.eval_every=3", "data.validation_split=train"))
    assert (code, "another split than data.split" in message) == (2, True)
    code, message = refusal(bench, *options("training.eval_every=3", "data.validation_split=tset"))
    assert (code, "--set data.validation_split=test" in message) == (3, True)
    ranks = fork_ranks(bench, 2, *NEW, *EVERY_3, "--set", "training.eval_images=1")
    assert [rank.exit_code() for rank in ranks] == [2, 2]
    assert "fewer images to validate on, 1, than processes, 2" in ranks[0].errors
    assert not list(bench.runs.glob("run-*"))


def test_what_a_resume_begins_to_measure_by_stays_the_same(bench):
    split = ("--set", "data.validation_split=test")
    fork(bench, *NEW, *split, "--steps", "4").succeeds()
    resume = (*RESUME, "--set", "training.eval_every=3")
    fork(bench, *resume, "--steps", "8").succeeds()
    test = bench.directory / "data" / "digits" / "test"
    digits = DigitsSource("test")
    others = 255 - digits.images
    write_dataset(test, others, digits.labels, digits.facts.class_names, replace=True)
    refused = fork(bench, *resume, "--steps", "12")
    assert refused.exit_code() == 2
    assert "is not the one that run-1 was measured on" in refused.errors
    write_dataset(test, digits.images, digits.labels, digits.facts.class_names, replace=True)
    fork(bench, *resume, "--steps", "12").succeeds()


def test_images_that_do_not_suit_are_named(bench):
    test = bench.directory / "data" / "digits" / "test"
    split = DigitsSource("test")
    names = split.facts.class_names
    write_dataset(test, split.images[:, 1:7, 1:7], split.labels, names, replace=True)
    code, message = refusal(bench, *EVERY_3)
    assert (code, "validate on are 6x6x1, the network takes 8x8x1" in message) == (2, True)
    write_dataset(test, split.images, split.labels, tuple("zyxwvutsrq"), replace=True)
    code, message = refusal(bench, *EVERY_3)
    assert (code, "other classes than those to train on" in message) == (2, True)
    # a network without classes does not mind
    fork(bench, *NEW, *EVERY_3, "--steps", "3", "--set", "model.classes=0").succeeds()


def test_a_plain_folder_has_nothing_to_validate_on(bench):
    folder = bench.directory / "photos"
    folder.mkdir()
    from PIL import Image

    Image.fromarray(np.full((8, 8), 9, dtype=np.uint8)).save(folder / "a_1.png")
    code, message = refusal(bench, *EVERY_3, "--data", "photos", "--set", "model.classes=0")
    assert (code, "photos is a plain folder, which has no split 'test'" in message) == (2, True)
