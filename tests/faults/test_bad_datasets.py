"""Trials 26 and 27: datasets of a wrong kind, missing, changed, or of next to no images."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aftermath import CORRUPT, MISSING, USAGE, assert_ended, assert_sound
from runs_in_processes import NEW, attempts, checkpoint, fork, status

EVAL = ("eval", "run-1", "--nll", "--num", "1", "--timesteps", "2", "--device", "cpu")


def change_record(directory: Path, **changes: object) -> None:
    path = directory / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_array(file: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def rewrite(directory: Path) -> None:
        np.save(directory / file, change(np.load(directory / file)))

    return rewrite


def with_label(label: int) -> Callable[[Path], None]:
    def relabel(labels: np.ndarray) -> np.ndarray:
        labels[7] = label
        return labels

    return change_array("labels.npy", relabel)


WRONG: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "images of another type": (
        change_array("images.npy", lambda images: images.astype(np.float32)),
        ["images.npy holds float32", "uint8"],
    ),
    "images of another size": (
        change_array("images.npy", lambda images: images[:, :6]),
        ["images.npy holds uint8 (1500, 6, 8, 1)", "(1500, 8, 8, 1)"],
    ),
    "fewer images": (
        change_array("images.npy", lambda images: images[:9]),
        ["images.npy holds uint8 (9, 8, 8, 1)"],
    ),
    "a label too large": (with_label(10), ["the label of image 7 is 10, but there are 10 classes"]),
    "a label below 0": (with_label(-1), ["the label of image 7 is -1"]),
    "labels of fractions": (
        change_array("labels.npy", lambda labels: labels.astype(np.float64)),
        ["labels.npy holds float64"],
    ),
    "no labels": (lambda directory: (directory / "labels.npy").unlink(), ["labels.npy is missing"]),
    "fewer labels": (change_array("labels.npy", lambda labels: labels[:9]), ["labels.npy holds int64 (9,)"]),
    "no image at all": (lambda directory: change_record(directory, count=0), ["impossible count"]),
    "a cut file": (
        lambda directory: os.truncate(directory / "images.npy", 5000),
        ["images.npy cannot be read"],
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_prepared_dataset_that_is_not_what_it_says_is_refused_before_training(wrong, trained, tmp_path):
    change, phrases = WRONG[wrong]
    shutil.copytree(trained.directory / "data" / "digits" / "train", tmp_path / "train")
    change(tmp_path / "train")
    refused = fork(trained, *NEW, "--data", str(tmp_path / "train"))
    assert_ended(
        refused, CORRUPT, f"the prepared dataset in {tmp_path}/train is damaged", *phrases, "--force"
    )
    assert not trained.run(2).exists()


def test_a_damaged_dataset_is_refused_before_evaluation(bench):
    (bench.directory / "data" / "digits" / "test" / "labels.npy").unlink()
    refused = fork(bench, *EVAL, "--data", "data/digits")
    assert_ended(refused, CORRUPT, "data/digits/test is damaged", "labels.npy is missing")
    assert_sound(bench)


MISFITS = {
    "too small": (
        ["--set", "data.resolution=16", "--set", "model.attention_resolutions=[]"],
        ["data.resolution", "16", "8x8"],
    ),
    "other channels": (["--set", "data.channels=3"], ["data.channels"]),
    "other classes": (["--set", "model.classes=7"], ["model.classes is 7", "10 classes"]),
    "a million classes": (["--set", "model.classes=1000000"], ["model.classes", "1000000", "100000"]),
    "a batch of no image": (["--set", "training.batch_size=0"], ["training.batch_size", "0"]),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_settings_that_do_not_suit_the_dataset_are_refused_before_training(misfit, trained):
    options, phrases = MISFITS[misfit]
    assert_ended(fork(trained, *NEW, *options), USAGE, *phrases)
    assert not trained.run(2).exists()


def test_a_dataset_of_a_million_classes_is_refused_before_training(bench):
    directory = bench.directory / "data" / "digits" / "train"
    change_record(directory, class_names=[str(number) for number in range(1_000_000)])
    assert_ended(fork(bench, *NEW), USAGE, "model.classes is 10", "1000000 classes")
    refused = fork(bench, *NEW, "--set", "model.classes=1000000")
    assert_ended(refused, USAGE, "model.classes = 1000000")
    assert not bench.run(2).exists()
    assert_sound(bench)


def shades(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        Image.new("L", (16, 16), 40 * number).save(folder / f"{number % 2}_{number}.png")


FOLDER = ("--data", "folder", "--set", "model.classes=0", "--set", "data.flip=false")


def test_a_missing_dataset_says_how_to_get_it(bench):
    assert_ended(fork(bench, *NEW, "--steps", "2"), 0)
    shutil.rmtree(bench.directory / "data")
    assert_ended(fork(bench, *NEW), MISSING, "'digits' is not prepared", "diffcli prepare digits")
    # a run knows where its data lay
    gone = fork(bench, "train", "--resume", "run-2", "--steps", "3")
    assert_ended(gone, MISSING, str(bench.directory / "data" / "digits" / "train"))
    assert_ended(fork(bench, *NEW, "--data", "nowhere"), MISSING, "there is no nowhere")
    assert_sound(bench)


def test_a_run_is_not_resumed_with_other_images(bench):
    shades(bench.directory / "folder", 6)
    trained = fork(bench, *NEW, *FOLDER, "--steps", "2", "--name", "shades")
    assert_ended(trained, 0)
    (bench.directory / "folder" / "0_0.png").unlink()
    refused = fork(bench, "train", "--resume", "shades", "--steps", "3")
    assert_ended(refused, USAGE, "not the one that run-2 was trained on", "5 images, then 6")
    assert_sound(bench)


def test_no_image_is_no_dataset(bench):
    (bench.directory / "folder").mkdir()
    assert_ended(fork(bench, *NEW, *FOLDER), MISSING, "folder holds no images", "png")
    prepare = ("prepare", "folder", "folder", "--size", "8")
    assert_ended(fork(bench, *prepare), MISSING, "folder holds no images", "png")
    assert not bench.run(2).exists()
    assert_sound(bench)


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_images_than_a_batch_train_and_resume(count, bench):
    shades(bench.directory / "folder", count)
    trained = fork(bench, *NEW, *FOLDER, "--steps", "2")
    images = "1 image" if count == 1 else f"{count} images"
    assert_ended(trained, 0, f"the dataset has {images}, fewer than the batch of 8")
    assert_ended(fork(bench, "train", "--resume", "run-2", "--steps", "3"), 0, "goes on from step 2")
    assert status(bench.run(2))["state"] == "completed"
    assert attempts(bench.run(2))[-1]["first_step"] == 2
    assert checkpoint(bench.run(2), 3).is_dir()
    assert_sound(bench)
