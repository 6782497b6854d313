"""`diffcli eval`: that both sides are the images that are meant, in real processes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffcli.config.sections import DataConfig
from diffcli.console.run_evaluations import evaluation_lines
from diffcli.data.cropping import centered
from diffcli.records.run_details import EvaluationSummary
from evaluations_on_disk import fid
from latent_runs import drawing
from runs_in_processes import NEW, Bench, fork, fork_ranks, make_bench, options
from runs_on_disk import run_of_a_network

PIXELS = ("--features", "pixels", "--metrics", "fd", "--device", "cpu", "--threads", "1")
DRAWN = ("--num", "20", "--ddim", "2", "--batch-size", "10")


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Bench:
    """Digits, and a run of a network that was not trained."""
    made = make_bench(tmp_path_factory.mktemp("eval-references"))
    run_of_a_network(made.runs, drawing(8, classes=0), "plain")
    return made


def evaluated(bench: Bench, *arguments: str):
    return json.loads(fork(bench, "eval", *arguments, *PIXELS, "--json").succeeds().output)


def distance(result) -> float:
    (metric,) = result["metrics"]
    return metric["value"]


def gray_folder(directory: Path, *, brightness: int) -> Path:
    """24 uncompressed images, so that their sizes tell nothing of their pixels."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(brightness)
    for number in range(24):
        pixels = rng.integers(brightness, brightness + 100, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"{number:02d}.png", compress_level=0)
    return directory


def test_folders_of_the_same_names_and_sizes_are_told_apart(digits, tmp_path):
    dark, bright = (gray_folder(tmp_path / str(shade), brightness=shade) for shade in (0, 150))
    out = tmp_path / "kept.json"
    line = ("--reference", "digits/test", "--out", str(out))
    kept = evaluated(digits, str(dark), *line)
    refused = fork(digits, "eval", str(bright), *line, *PIXELS)
    assert refused.exit_code() == 2
    assert "is another evaluation" in refused.errors
    assert distance(evaluated(digits, str(bright), *line, "--force")) != distance(kept)
    of_run = ("run-1", *DRAWN)
    assert distance(evaluated(digits, *of_run, "--reference", str(dark))) != distance(
        evaluated(digits, *of_run, "--reference", str(bright))
    )


def test_a_folder_that_was_changed_in_place_is_measured_again(digits, tmp_path):
    folder = gray_folder(tmp_path / "folder", brightness=0)
    line = ("run-1", *DRAWN, "--reference", str(folder))
    before = evaluated(digits, *line)
    assert evaluated(digits, *line)["already_there"]
    gray_folder(folder, brightness=150)
    after = evaluated(digits, *line)
    assert not after["already_there"]
    assert distance(after) != distance(before)


@pytest.fixture(scope="module")
def trained_on_photos(tmp_path_factory) -> Bench:
    """A run of one step, at 8x8 on a folder of larger images that are no squares."""
    made = make_bench(tmp_path_factory.mktemp("eval-photos"))
    rng = np.random.default_rng(0)
    (made.directory / "photos").mkdir()
    for number in range(20):
        pixels = rng.integers(0, 256, (12 + number, 17), dtype=np.uint8)
        Image.fromarray(pixels).save(made.directory / f"photos/{number:02d}.png")
    fork(made, *NEW, "--data", "photos", *options("model.classes=0"), "--steps", "1").succeeds()
    return made


def test_samples_are_compared_with_a_folder_as_it_was_trained_on(trained_on_photos):
    told = evaluated(trained_on_photos, "run-1", *DRAWN)
    assert (told["reference"]["height"], told["reference"]["count"]) == (8, 20)
    cut = ("--source", "photos", "--size", "8", "--channels", "1", "--name", "cut")
    fork(trained_on_photos, "prepare", "folder", *cut).succeeds()
    by_hand = evaluated(trained_on_photos, "run-1", *DRAWN, "--reference", "cut/train")
    assert distance(told) == pytest.approx(distance(by_hand), rel=1e-6)


def test_samples_are_compared_with_the_middle_of_larger_prepared_images(tmp_path):
    made = make_bench(tmp_path)
    run_of_a_network(made.runs, drawing(4, classes=0), "smaller")
    told = evaluated(made, "run-1", *DRAWN)
    assert (told["reference"]["height"], told["reference"]["split"]) == (4, "train")
    stored = np.load(made.directory / "data/digits/train/images.npy")
    np.savez(tmp_path / "small.npz", arr_0=centered(stored, DataConfig(resolution=4, channels=1)))
    by_hand = evaluated(made, "run-1", *DRAWN, "--reference", "small.npz")
    assert distance(told) == pytest.approx(distance(by_hand), rel=1e-6)


def test_other_images_in_the_place_of_the_training_data_are_refused(tmp_path):
    made = make_bench(tmp_path)
    run_of_a_network(made.runs, drawing(8, classes=0), "plain")
    train, test = (made.directory / "data/digits" / split for split in ("train", "test"))
    shutil.rmtree(train)
    shutil.copytree(test, train)
    refused = fork(made, "eval", "run-1", *DRAWN, *PIXELS)
    assert refused.exit_code() == 2
    assert "are not those that run-1 was trained on" in refused.errors
    assert "297 images, then 1500" in refused.errors
    assert "--reference data/digits/train" in refused.errors
    assert not list((made.run() / "samples").glob("*"))
    assert evaluated(made, "run-1", *DRAWN, "--reference", "data/digits/train")["reference"]["count"] == 297


@pytest.mark.parametrize("first", ["L", "RGB"])
def test_one_gray_image_does_not_take_the_colour_of_a_folder(digits, tmp_path, first):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    images[0] = images[0, ..., :1]
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, pixels in enumerate(images):
        image = Image.fromarray(pixels)
        (image.convert(first) if number == 0 else image).save(folder / f"{number}.png")
    np.savez(tmp_path / "archive.npz", arr_0=images)
    np.savez(tmp_path / "reference.npz", arr_0=np.flip(images, axis=(1, 2)))
    line = ("--reference", str(tmp_path / "reference.npz"))
    told = evaluated(digits, str(folder), *line)
    assert told["samples"]["channels"] == 3
    assert distance(told) == distance(evaluated(digits, str(tmp_path / "archive.npz"), *line))


def test_a_dataset_of_several_splits_is_told_how_to_be_named(digits):
    refused = fork(digits, "eval", "data/digits", *PIXELS, "--reference", "digits/test")
    assert refused.exit_code() == 2
    assert "name one of them, such as data/digits/test" in refused.errors


def test_each_rank_names_the_image_that_it_cannot_use(digits, tmp_path):
    folder = gray_folder(tmp_path / "folder", brightness=0)
    bad = folder / "11.png"
    bad.write_bytes(bad.read_bytes()[:-40])
    line = ("eval", str(folder), *PIXELS, "--feature-batch", "8", "--reference", "digits/test")
    first, second = fork_ranks(digits, 2, *line)
    assert second.exit_code() == 5
    assert "rank 1: 1 of 8 images" in second.errors
    assert "cannot be used; 11.png: " in second.errors
    assert first.exit_code() == 1
    assert "another process of this command has ended" in first.errors
    assert "start the same command again" in first.errors


def test_statistics_without_images_are_shown_without_a_size():
    evaluation = fid(3.0)
    assert evaluation.reference is not None
    statistics = dataclasses.replace(
        evaluation.reference, kind="statistics", count=0, total=0, height=0, width=0, channels=0
    )
    summary = EvaluationSummary(
        name="fid",
        path=Path("evals/fid.json"),
        kind="images",
        evaluation=dataclasses.replace(evaluation, reference=statistics),
        problem=None,
    )
    (shown,) = [line.value for line in evaluation_lines(summary) if line.name == "reference"]
    assert shown == f"{statistics.location}: statistics ({'d' * 12})"
