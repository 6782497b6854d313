"""`diffcli sample`: which image is which, what an archive holds, and what an interruption leaves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffcli.commands.sample import sample
from diffcli.commands.train import train
from diffcli.commands.training_target import TrainRequest
from diffcli.errors import CorruptError, MissingError, UsageError
from diffcli.sampling.noise import initial_noise, sample_classes
from runs_in_processes import Bench, fork, fork_ranks, make_bench, wait_until
from sampling_requests import Quiet, sample_request

TINY = """
[data]
name = "digits"
resolution = 8
channels = 1
[model]
channels = 32
channel_mult = [1]
res_blocks = 1
attention_resolutions = []
classes = 10
[diffusion]
steps = 40
schedule = "cosine"
variance = "learned_range"
objective = "hybrid"
[training]
steps = 6
batch_size = 8
ema_rates = [0.5, 0.9]
save_every = 3
[sampling]
steps = 5
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    """Digits, a class-conditional run of a few steps, and a super-resolution run."""
    made = make_bench(tmp_path_factory.mktemp("sampling"), TINY)
    request = TrainRequest(
        preset=str(made.directory / "tiny.toml"),
        resume=None,
        parent=None,
        rollback=None,
        data_directory=None,
        name="tiny",
        overrides=(),
        seed=None,
        precision=None,
        steps=None,
        device="cpu",
        threads=1,
        runs_home=made.runs,
        data_home=made.directory / "data",
        command_line=(),
    )
    train(request, Quiet())
    superres = ("model.kind=superres", "data.low_resolution=4", "training.steps=3")
    train(dataclasses.replace(request, name="upsampler", overrides=superres), Quiet())
    return made


def request_for(bench, **changes):
    return sample_request(bench.runs, **changes)


def draw(bench, **changes):
    """The images and labels of an archive, and its result."""
    result = sample(request_for(bench, **changes), Quiet())
    with np.load(result.archive) as archive:
        return archive["arr_0"], archive.get("arr_1"), result


def test_the_archive_is_the_references_and_says_how_it_was_made(bench):
    images, labels, result = draw(bench)
    assert result.archive.name == "samples_10x8x8x1.npz"
    assert (images.dtype, images.shape) == (np.uint8, (10, 8, 8, 1))
    assert (labels.dtype, labels.shape) == (np.int64, (10,))
    assert len(np.unique(images)) > 50
    record = json.loads(result.record.read_text())
    expected = {
        "schema": 1,
        "run": "run-1",
        "checkpoint": 6,
        "weights": "ema-0.5",
        "solver": "ancestral",
        "steps": 5,
        "seed": 3,
        "count": 10,
        "batch_size": 4,
        "precision": "fp32",
        "threads": 1,
        "world_size": 1,
    }
    assert {key: record[key] for key in expected} == expected
    assert record["timesteps"] == [0, 10, 20, 29, 39]
    with Image.open(result.grid) as grid:
        assert grid.size == (10 * 34 - 2, 32)
    assert sorted(path.name for path in result.directory.iterdir()) == [
        "grid.png",
        "sample.json",
        "samples_10x8x8x1.npz",
    ]


def test_image_i_is_the_same_whatever_else_is_asked_for(bench):
    few, few_labels, _ = draw(bench, count=5, force=True)
    many, many_labels, _ = draw(bench, count=11, force=True)
    assert np.array_equal(few, many[:5])
    assert np.array_equal(few_labels, many_labels[:5])
    other_seed, _, _ = draw(bench, count=5, seed=4)
    assert not np.array_equal(few, other_seed)


def test_another_batch_size_changes_rounding_only(bench):
    small, _, _ = draw(bench, batch_size=3)
    large, _, _ = draw(bench, batch_size=10)
    assert np.abs(small.astype(int) - large.astype(int)).max() <= 1


def test_given_noise_takes_the_place_of_drawn_noise(bench, tmp_path):
    noise = initial_noise(3, torch.arange(12), (1, 8, 8)).numpy()
    np.save(tmp_path / "x_T.npy", noise)
    drawn, _, _ = draw(bench, ddim=5)
    given, _, result = draw(bench, ddim=5, noise=tmp_path / "x_T.npy")
    assert np.array_equal(drawn, given)
    digest = hashlib.sha256((tmp_path / "x_T.npy").read_bytes()).hexdigest()
    assert json.loads(result.record.read_text())["noise_sha256"] == digest
    np.save(tmp_path / "negated.npy", -noise)
    negated, _, _ = draw(bench, ddim=5, noise=tmp_path / "negated.npy")
    assert not np.array_equal(drawn, negated)


def test_listed_classes_go_round(bench):
    _, labels, _ = draw(bench, classes="7,2,9")
    assert labels.tolist() == [7, 2, 9, 7, 2, 9, 7, 2, 9, 7]


def test_weights_solver_and_checkpoint_all_matter(bench):
    base, _, _ = draw(bench, classes="1")
    variants = [
        {"ema": "0.9"},
        {"ema": "none"},
        {"checkpoint": 3},
        {"ddim": 5},
        {"ddim": 5, "eta": 1.0},
        {"steps": "2,3"},
        {"overrides": ("sampling.clip=false",)},
    ]
    seen = {base.tobytes()}
    for variant in variants:
        images, _, result = draw(bench, classes="1", **variant)
        seen.add(images.tobytes())
        assert not result.already_there
    assert len(seen) == len(variants) + 1


def test_the_same_request_again_draws_nothing_and_another_one_never_overwrites(bench):
    first = sample(request_for(bench, name="kept"), Quiet())
    before = first.archive.read_bytes()
    assert sample(request_for(bench, name="kept"), Quiet()).already_there
    with pytest.raises(UsageError, match="made otherwise"):
        sample(request_for(bench, name="kept", seed=9), Quiet())
    assert first.archive.read_bytes() == before
    sample(request_for(bench, name="kept", seed=9, force=True), Quiet())
    assert first.archive.read_bytes() != before


def test_force_replaces_archives_and_nothing_else(bench, tmp_path):
    (tmp_path / "precious").mkdir()
    thesis = tmp_path / "precious" / "thesis.txt"
    thesis.write_text("years of work")
    with pytest.raises(UsageError, match="no sample archive"):
        sample(request_for(bench, out=tmp_path / "precious", force=True), Quiet())
    assert thesis.read_text() == "years of work"
    with pytest.raises(UsageError, match="no sample archive"):
        sample(request_for(bench, out=thesis, force=True), Quiet())


def test_progress_is_told_within_a_batch(bench):
    progress = Quiet()
    sample(request_for(bench, count=8, batch_size=8, seed=77), progress)
    assert progress.seen == [(0, 8), (1, 8), (3, 8), (4, 8), (6, 8), (8, 8), (8, 8)]


def test_out_writes_elsewhere(bench, tmp_path):
    result = sample(request_for(bench, out=tmp_path / "mine"), Quiet())
    assert result.archive == tmp_path / "mine" / "samples_10x8x8x1.npz"
    assert result.archive.is_file()


def test_super_resolution_enlarges_small_images_and_keeps_their_labels(bench, tmp_path):
    small = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 1), dtype=np.uint8)
    np.savez(tmp_path / "small.npz", arr_0=small, arr_1=np.arange(10))
    images, labels, _ = draw(bench, run="upsampler", low_res=tmp_path / "small.npz")
    assert images.shape == (10, 8, 8, 1)
    assert labels.tolist() == list(range(10))
    np.savez(tmp_path / "other.npz", arr_0=255 - small, arr_1=np.arange(10))
    others, _, _ = draw(bench, run="upsampler", low_res=tmp_path / "other.npz")
    assert not np.array_equal(images, others)
    with pytest.raises(UsageError, match="needs small images"):
        draw(bench, run="upsampler")
    for labels, words in [(np.arange(2), r"\[10\]"), (np.arange(10) + 1, "labels from 1 to 10")]:
        np.savez(tmp_path / "wrong.npz", arr_0=small, arr_1=labels)
        with pytest.raises(UsageError, match=words):
            draw(bench, run="upsampler", low_res=tmp_path / "wrong.npz")


def test_super_resolution_takes_a_dataset_that_is_too_large_and_says_so(bench):
    progress = Quiet()
    dataset = bench.directory / "data" / "digits" / "test"
    request = request_for(bench, run="upsampler", low_res=dataset, count=None, batch_size=None)
    result = sample(request, progress)
    with np.load(result.archive) as archive:
        images, labels = archive["arr_0"], archive["arr_1"]
    assert images.shape == (297, 8, 8, 1)
    assert np.array_equal(labels, np.load(dataset / "labels.npy"))
    assert "all 297 images were larger, and brought to 4x4" in progress.seen


def test_classes_that_nothing_tells_are_drawn_and_that_is_said(bench, tmp_path):
    np.savez(tmp_path / "small.npz", arr_0=np.zeros((4, 4, 4, 1), dtype=np.uint8))
    progress = Quiet()
    request = request_for(bench, run="upsampler", low_res=tmp_path / "small.npz", count=None)
    result = sample(request, progress)
    with np.load(result.archive) as archive:
        drawn = archive["arr_1"]
    assert np.array_equal(drawn, sample_classes(3, torch.arange(4), 10).numpy())
    assert any("drawn by the seed" in str(said) for said in progress.seen)


REFUSALS = [
    ({"steps": "5", "ddim": 5}, UsageError, "exclude each other"),
    ({"eta": 0.5}, UsageError, "eta is for DDIM"),
    ({"steps": "0"}, UsageError, "no timestep"),
    ({"name": "a/b"}, UsageError, "cannot be named"),
    ({"name": ".."}, UsageError, "cannot be named"),
    ({"steps": "many"}, UsageError, "no number of steps"),
    ({"ddim": 41}, UsageError, "at most diffusion.steps = 40"),
    ({"ema": "0.7"}, UsageError, "sampling.ema"),
    ({"overrides": ("training.lr=1",)}, UsageError, "training.lr"),
    ({"classes": "11"}, UsageError, "no class '11'"),
    ({"checkpoint": 4}, MissingError, "step 4"),
    ({"run": "tinny"}, MissingError, "tinny"),
    ({"low_res": Path("x.npz")}, UsageError, "only a super-resolution run"),
    ({"noise": Path("nowhere.npy")}, MissingError, "nowhere"),
]


@pytest.mark.parametrize(("changes", "kind", "words"), REFUSALS)
def test_what_cannot_be_meant_is_refused(bench, changes, kind, words):
    with pytest.raises(kind, match=words):
        sample(request_for(bench, **changes), Quiet())


def test_noise_of_the_wrong_shape_or_kind_is_refused(bench, tmp_path):
    np.save(tmp_path / "few.npy", np.zeros((2, 1, 8, 8), np.float32))
    with pytest.raises(UsageError, match=r"\[10, 1, 8, 8\]"):
        draw(bench, noise=tmp_path / "few.npy")
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(CorruptError):
        draw(bench, noise=tmp_path / "text.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(CorruptError):
        draw(bench, noise=tmp_path / "objects.npy")


LONG = (
    "sample",
    "tiny",
    "--num",
    "22",
    "--batch-size",
    "4",
    "--device",
    "cpu",
    "--threads",
    "1",
    "--seed",
    "5",
)


def only_archive(directory: Path) -> bytes:
    (archive,) = directory.glob("samples_*.npz")
    return archive.read_bytes()


def test_ranks_and_interruptions_change_no_bit(bench):
    whole = fork(bench, *LONG, "--name", "whole").succeeds()
    assert "grid" in whole.output
    samples = bench.run() / "samples"

    # --force, or all images would be taken from what is there
    ranks = fork_ranks(bench, 2, *LONG, "--name", "ranks", "--force")
    for rank in ranks:
        rank.succeeds()
    assert [bool(rank.output) for rank in ranks] == [True, False]
    assert json.loads((samples / "ranks" / "sample.json").read_text())["world_size"] == 2
    assert only_archive(samples / "ranks") == only_archive(samples / "whole")

    stopped = fork(bench, *LONG, "--name", "stopped", "--force")
    parts = samples / ".stopped.parts"
    wait_until(lambda: list(parts.glob("batch-*")), stopped)
    stopped.send(signal.SIGTERM)
    assert stopped.exit_code() == 143
    assert "same command goes on" in stopped.errors
    assert 0 < len(list(parts.glob("batch-*"))) < 6
    assert not (samples / "stopped").exists()
    fork(bench, *LONG, "--name", "stopped", "--force").succeeds()
    assert only_archive(samples / "stopped") == only_archive(samples / "whole")
    assert not parts.exists()


@pytest.mark.parametrize("ranks", [(2, 1), (1, 2)], ids=["then one rank", "then two ranks"])
def test_a_kill_at_any_moment_and_other_ranks_change_no_bit(ranks, bench):
    line = (*LONG, "--num", "30", "--batch-size", "2", "--steps", "20", "--force")
    name = f"killed-on-{ranks[0]}"
    whole = fork(bench, *line, "--name", f"{name}-never").succeeds()
    parts = bench.run() / "samples" / f".{name}.parts"
    for wanted in random.Random(ranks[0]).sample(range(1, 12), 2):
        killed = fork_ranks(bench, ranks[0], *line, "--name", name)
        wait_until(lambda wanted=wanted: len(list(parts.glob("batch-*"))) >= wanted, killed[0])
        for rank in killed:
            rank.send(signal.SIGKILL)
        assert [rank.exit_code() for rank in killed] == [-signal.SIGKILL] * ranks[0]
    before = {path.name: path.stat().st_ino for path in parts.glob("batch-*")}
    assert before
    gone_on = fork_ranks(bench, ranks[1], *line, "--name", name)
    wait_until(lambda: len(list(parts.glob("batch-*"))) > len(before), gone_on[0])
    # what was whole is not drawn again
    assert before.items() <= {path.name: path.stat().st_ino for path in parts.glob("batch-*")}.items()
    for rank in gone_on:
        rank.succeeds()
    places = [dict(row.split("\t") for row in rank.output.splitlines()) for rank in (whole, gone_on[0])]
    one, other = ((bench.directory / place["archive"]).read_bytes() for place in places)
    assert one == other
    assert not parts.exists()
