"""Classifiers through the real commands: they learn, resume bitwise, and do not draw."""

from __future__ import annotations

import math
from signal import SIGINT, SIGKILL

import numpy as np
import pytest
from PIL import Image

from runs_in_processes import (
    Moment,
    attempts,
    checkpoint,
    content,
    fork,
    fork_ranks,
    make_bench,
    options,
    rows,
)

STEPS = 12
# small, with everything in it that has a state or draws random numbers
PRESET = """
[data]
name = "digits"
validation_split = "test"
resolution = 8
channels = 1

[model]
kind = "classifier"
channels = 32
channel_mult = [1, 1]
res_blocks = 1
attention_resolutions = [8]
head_channels = 16
resblock_updown = true
dropout = 0.1
classes = 10

[diffusion]
schedule = "cosine"

[training]
steps = 12
batch_size = 8
lr = 1e-3
lr_warmup_steps = 3
lr_anneal_steps = 20
weight_decay = 0.05
ema_rates = []
log_every = 3
save_every = 4
eval_every = 6
eval_images = 40

[sampling]
ema = "none"
"""
NEW = ("train", "--preset", "./tiny.toml", "--device", "cpu")
RESUME = ("train", "--resume", "run-1", "--device", "cpu")


@pytest.fixture
def bench(tmp_path):
    return make_bench(tmp_path, PRESET)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A bench with one run."""
    bench = make_bench(tmp_path_factory.mktemp("uninterrupted"), PRESET)
    fork(bench, *NEW).succeeds()
    return bench


def assert_same(run, other):
    """The same bits of weights, moments, counters and rows."""
    files = content(checkpoint(run, STEPS))
    assert files == content(checkpoint(other, STEPS))
    assert set(files) == {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}
    assert rows(run) == rows(other)


# ---- what it logs ----


def test_accuracies_are_logged_overall_and_by_quartile_of_the_timesteps(uninterrupted):
    logged = rows(uninterrupted.run())
    assert [row.step for row in logged] == [3, 6, 9, 12]
    assert [row.step for row in logged if row.val] == [6, 12]
    for terms in (*logged, *(row.val for row in logged if row.val)):
        assert (terms.mse, terms.vb) == (None, None)
        for accuracy in (terms.acc1, terms.acc5):
            assert all(0 <= share <= 1 for share in (accuracy.overall, *known(accuracy.quartiles)))
        assert terms.acc1.overall <= terms.acc5.overall
    # 24 images each row, 40 to validate on
    assert all((24 * row.acc1.overall) == pytest.approx(round(24 * row.acc1.overall)) for row in logged)
    assert (40 * logged[1].val.acc5.overall) == pytest.approx(round(40 * logged[1].val.acc5.overall))
    # ten classes it knows nothing of
    assert logged[0].loss.overall == pytest.approx(math.log(10), rel=0.2)


def known(quartiles):
    return [share for share in quartiles if share is not None]


def test_a_line_and_runs_show_tell_them(uninterrupted, bench):
    trained = fork(bench, *NEW, "--steps", "6").succeeds()
    for words in ("acc@1 0.", "acc@5 0.", "val loss 2.", "val acc@1 0.", "val acc@5 0."):
        assert words in trained.errors
    assert "next: diffcli sample RUN --classifier run-1" in trained.errors
    shown = fork(bench, "runs", "show", "run-1").succeeds()
    names = [line.split("\t")[1] for line in shown.output.splitlines() if line.startswith("metrics")]
    assert {"acc1", "acc1_q0", "acc5", "val_loss", "val_acc1", "val_acc1_q3", "val_acc5"} <= set(names)
    assert not {"mse", "vb", "val_mse"} & set(names)


def test_clean_images_are_of_timestep_0_and_need_no_noise(bench):
    fork(bench, *NEW, *options("training.noisy=false")).succeeds()
    for row in rows(bench.run()):
        for terms in filter(None, (row, row.val)):
            assert terms.acc1.quartiles == (terms.acc1.overall, None, None, None)


# ---- no bit lost ----


def test_a_kill_and_resume_change_no_bit(bench, uninterrupted):
    moment = Moment(event="StepDone", step=8, signal_number=SIGKILL)
    assert fork(bench, *NEW, moment=moment).exit_code() == -SIGKILL
    resumed = fork(bench, *RESUME).succeeds()
    assert "run-1 goes on from step" in resumed.errors
    assert_same(bench.run(), uninterrupted.run())


def test_a_stop_within_an_interval_keeps_its_accuracies(bench, uninterrupted):
    moment = Moment(event="StepDone", step=4, signal_number=SIGINT)
    assert fork(bench, *NEW, moment=moment).exit_code() == 130
    assert checkpoint(bench.run(), 5).exists()
    fork(bench, *RESUME).succeeds()
    assert_same(bench.run(), uninterrupted.run())


def test_measurements_and_recomputed_blocks_change_no_bit(bench, uninterrupted):
    settings = options("training.eval_every=0", "model.checkpoint_blocks=true")
    fork(bench, *NEW, *settings).succeeds()
    assert content(checkpoint(bench.run(), STEPS)) == content(checkpoint(uninterrupted.run(), STEPS))


def test_fp16_resumes_bitwise_and_bf16_learns_the_same(tmp_path, uninterrupted):
    whole, parts = (make_bench(tmp_path / name, PRESET) for name in ("whole", "parts"))
    fork(whole, *NEW, "--precision", "fp16").succeeds()
    moment = Moment(event="StepDone", step=6, signal_number=SIGKILL)
    assert fork(parts, *NEW, "--precision", "fp16", moment=moment).exit_code() == -SIGKILL
    fork(parts, *RESUME).succeeds()
    assert_same(parts.run(), whole.run())
    fork(whole, *NEW, "--precision", "bf16").succeeds()
    for half in (whole.run(1), whole.run(2)):
        for row, single in zip(rows(half), rows(uninterrupted.run()), strict=True):
            assert row.loss.overall == pytest.approx(single.loss.overall, rel=0.05)


# ---- however it is spread ----


def test_two_processes_and_microbatches_have_the_same_curve(tmp_path):
    names = ("one", "two", "microbatches")
    one, two, parts = (make_bench(tmp_path / name, PRESET) for name in names)
    same = options("model.dropout=0", "training.batch_size=7")
    alone, in_parts = fork(one, *NEW, *same), fork(parts, *NEW, *same, *options("training.microbatch=3"))
    ranks = fork_ranks(two, 2, *NEW, *same)
    assert [rank.exit_code() for rank in ranks] == [0, 0], ranks[0].errors
    alone.succeeds()
    in_parts.succeeds()
    assert attempts(two.run())[0]["world_size"] == 2
    for other in (two, parts):
        for expected, found in zip(rows(one.run()), rows(other.run()), strict=True):
            assert found.loss.overall == pytest.approx(expected.loss.overall, rel=1e-4)
            assert found.acc1 == expected.acc1
            assert found.acc5 == expected.acc5
            assert found.grad_norm == pytest.approx(expected.grad_norm, rel=1e-3)
            if expected.val:
                assert found.val.loss.overall == pytest.approx(expected.val.loss.overall, rel=1e-4)
                assert found.val.acc1.overall == pytest.approx(expected.val.acc1.overall)


def test_auto_finds_the_microbatch_and_the_training_is_the_same(bench, uninterrupted):
    fork(bench, *NEW, *options("training.microbatch=auto")).succeeds()
    assert attempts(bench.run())[0]["microbatch"] == 8
    assert_same(bench.run(), uninterrupted.run())


# ---- its data ----


def test_random_crops_are_cut_from_larger_images_and_validation_takes_the_middle(bench, tmp_path):
    smaller = options("data.resolution=6", "model.attention_resolutions=[6]")
    fork(bench, *NEW, *smaller, *options("data.crop=random")).succeeds()
    fork(bench, *NEW, *smaller).succeeds()
    random, middle = rows(bench.run(1)), rows(bench.run(2))
    assert random[0].loss != middle[0].loss
    # before the weights have moved far, the same images are found as hard
    assert random[1].val.loss.overall == pytest.approx(middle[1].val.loss.overall, rel=0.05)
    refused = fork(bench, *NEW, *options("data.crop=random"))
    assert refused.exit_code() == 2
    assert (
        "data.crop is random, but the dataset's images are no larger than data.resolution" in refused.errors
    )
    assert "prepare them at --size 10 or more" in refused.errors


def test_images_without_labels_cannot_be_learned(bench):
    folder = bench.directory / "photos"
    folder.mkdir()
    for number in range(3):
        pixels = np.full((8, 8), 80 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"photo{number}.png")
    refused = fork(bench, *NEW, "--data", "photos", *options("training.eval_every=0"))
    assert refused.exit_code() == 2
    assert "model.classes is 10, but the images have no labels" in refused.errors
    assert "model.classes=0" not in refused.errors
    assert not list(bench.runs.glob("run-*"))


# ---- what it is for ----


@pytest.mark.parametrize(
    "line",
    [
        ("sample", "run-1", "--num", "1"),
        ("sample", "run-1", "--ema-std", "0.1"),
        ("eval", "run-1", "--nll"),
    ],
    ids=" ".join,
)
def test_it_draws_nothing_and_has_no_likelihood(uninterrupted, line):
    refused = fork(uninterrupted, *line)
    assert refused.exit_code() == 2
    assert "error: run-1 is a classifier: it draws no images and has no likelihood" in refused.errors
    assert "diffcli sample RUN --classifier run-1" in refused.errors
    assert not list((uninterrupted.run() / "samples").glob("*"))


def test_no_preview_is_drawn_of_it(bench):
    fork(bench, *NEW, *options("training.preview_every=6")).succeeds()
    assert not (bench.run() / "previews").exists()


def test_a_classifier_of_clean_images_learns_noise_from_there(bench, uninterrupted):
    fork(bench, *NEW, *options("training.noisy=false")).succeeds()
    started = ("train", "--from", "run-1", "--device", "cpu", *options("training.noisy=true"))
    fork(bench, *started).succeeds()
    assert None not in rows(bench.run(2))[-1].val.acc1.quartiles


@pytest.mark.timeout(600)
def test_the_preset_learns_to_read_noisy_digits(tmp_path):
    bench = make_bench(tmp_path)
    learned = ("train", "--preset", "digits_classifier", "--device", "cpu", "--steps", "150")
    trained = fork(bench, *learned, *options("training.lr_anneal_steps=150", "training.eval_every=100"))
    assert trained.exit_code(580) == 0, trained.errors
    last = rows(bench.run())[-1].val
    assert last.acc1.overall > 0.58
    assert last.acc5.overall > 0.83
    # hardly any noise: digits are read; hardly anything but noise: only guessed
    assert last.acc1.quartiles[0] > 0.95
    assert last.acc1.quartiles == tuple(sorted(last.acc1.quartiles, reverse=True))
    # where who only guesses has the logarithm of 10
    assert last.loss.overall < 0.55 * math.log(10)
