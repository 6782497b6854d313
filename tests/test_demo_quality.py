"""What the digits presets draw: a reader that has only seen real digits reads the class asked for."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.svm import SVC

from diffcli.config.sections import DataConfig
from diffcli.data.dataset import open_dataset

LEAST_RIGHT = 95
# as many of a hundred digits of 4x4 pixels are read when each pixel is made four
MOST_BY_NEAREST = 85
# of 255; the mean of four pixels of what was enlarged, and the one that it was enlarged from
MOST_APART = 8
LEAST_DECIBELS = 35
# of a hundred, where ten are right without any guidance
MOST_BY_CHANCE, LEAST_LED = 25, 90
CLASSES = ",".join(str(digit) for digit in range(10))


def diffcli(directory, *arguments):
    subprocess.run([sys.executable, "-m", "diffcli", *arguments], cwd=directory, check=True)


def digits(directory, split):
    config = DataConfig(name="digits", split=split, resolution=8, channels=1)
    dataset = open_dataset(config, home=directory / "data", directory=None)
    indices = np.arange(dataset.count)
    return dataset.read(indices).reshape(dataset.count, -1) / 255, dataset.labels(indices)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's commands, run in an empty directory."""
    directory = tmp_path_factory.mktemp("demo")
    diffcli(directory, "prepare", "digits")
    diffcli(directory, "train", "--preset", "digits", "--name", "demo")
    return directory


def reader_of_real_digits(directory):
    """A support vector machine, which knows nothing of noise, trained on the digits themselves."""
    images, labels = digits(directory, "train")
    reader = SVC(C=10).fit(images, labels)
    test_images, test_labels = digits(directory, "test")
    assert reader.score(test_images, test_labels) > 0.98
    return reader


def drawn(directory, out, *arguments):
    """A hundred different images as rows of pixels in [0, 1], and their labels if they have any."""
    diffcli(directory, "sample", *arguments, "--num", "100", "--out", str(out))
    with np.load(out / "samples_100x8x8x1.npz") as archive:
        samples, labels = archive["arr_0"].reshape(100, -1), archive.get("arr_1")
    # not the same picture over and over: each class holds different digits
    assert len(np.unique(samples, axis=0)) == 100
    return samples / 255, labels


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("solver", [[], ["--ddim", "50"]], ids=["ancestral", "ddim50"])
def test_a_classifier_of_real_digits_reads_the_classes_asked_for(demo, solver, tmp_path):
    samples, asked = drawn(demo, tmp_path / "out", "latest", "--class", CLASSES, *solver)
    assert np.bincount(asked).tolist() == [10] * 10
    assert (reader_of_real_digits(demo).predict(samples) == asked).sum() >= LEAST_RIGHT


@pytest.fixture(scope="module")
def guided(tmp_path_factory):
    """A directory with two runs: a network that knows no classes, and a classifier that can guide it."""
    directory = tmp_path_factory.mktemp("guided")
    diffcli(directory, "prepare", "digits")
    steps = ("--steps", "800", "--set", "training.lr_anneal_steps=800")
    diffcli(directory, "train", "--preset", "digits", "--set", "model.classes=0", "--name", "plain", *steps)
    diffcli(directory, "train", "--preset", "digits_classifier", "--name", "reader")
    return directory


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("solver", [["--steps", "50"], ["--ddim", "50"]], ids=["ancestral", "ddim"])
def test_a_classifier_makes_a_network_without_classes_draw_those_asked_for(guided, solver, tmp_path, capsys):
    reader = reader_of_real_digits(guided)
    asked = np.arange(100) % 10
    samples, labels = drawn(guided, tmp_path / "plain", "plain", *solver)
    assert labels is None
    by_chance = int((reader.predict(samples) == asked).sum())
    scale = ("--classifier", "reader", "--guidance", "3", "--class", CLASSES)
    samples, labels = drawn(guided, tmp_path / "guided", "plain", *solver, *scale)
    assert labels.tolist() == asked.tolist()
    led = int((reader.predict(samples) == asked).sum())
    with capsys.disabled():
        print(f"\n{solver[0]} 50: {by_chance} of 100 are read as asked for, with guidance {led}")
    assert by_chance <= MOST_BY_CHANCE
    assert led >= LEAST_LED


@pytest.fixture(scope="module")
def dropping(tmp_path_factory):
    """A directory with a network that learned digits with their classes and without, for too short a time."""
    directory = tmp_path_factory.mktemp("dropping")
    diffcli(directory, "prepare", "digits")
    drop = ("--set", "training.label_drop=0.1", "--steps", "200", "--name", "dropping")
    diffcli(directory, "train", "--preset", "digits", *drop)
    return directory


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_weight_above_1_shows_the_classes_asked_for_more_often(dropping, tmp_path, capsys):
    reader, asked = reader_of_real_digits(dropping), np.arange(100) % 10
    right = {}
    for weight in ("0", "1", "2", "3"):
        # at 0 there is no class to ask for
        classes = () if weight == "0" else ("--class", CLASSES)
        samples, labels = drawn(
            dropping, tmp_path / weight, "dropping", "--ddim", "25", "--cfg", weight, *classes
        )
        assert labels is None if weight == "0" else labels.tolist() == asked.tolist()
        right[weight] = int((reader.predict(samples) == asked).sum())
    with capsys.disabled():
        print(f"\nread as asked for, of 100, by weight: {right}")
    assert right["0"] <= MOST_BY_CHANCE
    assert right["1"] + 10 <= right["2"]
    assert right["3"] >= LEAST_LED


@pytest.fixture(scope="module")
def enlarging(tmp_path_factory):
    """A directory with two runs: one draws digits of 4x4 pixels, one makes 8x8 of them."""
    directory = tmp_path_factory.mktemp("enlarging")
    diffcli(directory, "prepare", "digits")
    small = ("--set", "data.resolution=4", "--steps", "1000", "--set", "training.lr_anneal_steps=1000")
    diffcli(directory, "train", "--preset", "digits", *small, "--name", "small")
    diffcli(directory, "train", "--preset", "digits_upsample", "--name", "enlarge")
    return directory


def area_means(images):
    """[N, 8, 8] -> [N, 4, 4]"""
    return images.reshape(-1, 4, 2, 4, 2).mean((2, 4))


def read_of(reader, images, labels):
    """How many of a hundred images of 8x8 levels are read as what they are."""
    return 100 * (reader.predict(images.reshape(len(images), -1) / 255) == labels).mean()


def assert_enlarged(reader, small, large, labels, capsys):
    by_nearest = read_of(reader, small.repeat(2, axis=1).repeat(2, axis=2), labels)
    enlarged = read_of(reader, large, labels)
    apart = np.abs(area_means(large.astype(float)) - small).mean()
    with capsys.disabled():
        print(
            f"\nof 100, {enlarged:.1f} are read as what they are, {by_nearest:.1f} by nearest neighbour; "
            f"{apart:.1f} of 255 from the small ones"
        )
    assert enlarged >= LEAST_RIGHT
    assert by_nearest <= MOST_BY_NEAREST
    assert apart <= MOST_APART


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_cascade_draws_digits_that_are_read_as_their_classes(enlarging, tmp_path, capsys):
    line = ("small", "--num", "100", "--class", CLASSES, "--then", "enlarge", "--out", str(tmp_path))
    diffcli(enlarging, "sample", *line)
    with np.load(tmp_path / "stage-1" / "samples_100x4x4x1.npz") as archive:
        small = archive["arr_0"][..., 0]
    with np.load(tmp_path / "stage-2" / "samples_100x8x8x1.npz") as archive:
        large, labels = archive["arr_0"][..., 0], archive["arr_1"]
    assert labels.tolist() == list(range(10)) * 10
    assert_enlarged(reader_of_real_digits(enlarging), small, large, labels, capsys)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_small_versions_of_digits_it_has_not_seen_are_enlarged(enlarging, tmp_path, capsys):
    diffcli(enlarging, "sample", "enlarge", "--low-res", "data/digits/test", "--out", str(tmp_path / "out"))
    with np.load(tmp_path / "out" / "samples_297x8x8x1.npz") as archive:
        large, kept = archive["arr_0"][..., 0], archive["arr_1"]
    images, labels = digits(enlarging, "test")
    assert kept.tolist() == labels.tolist()
    small = area_means(255 * images.reshape(-1, 8, 8))
    assert_enlarged(reader_of_real_digits(enlarging), small, large, labels, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_real_digits_are_drawn_again_from_what_they_are_encoded_into(demo, tmp_path, capsys):
    decibels = []
    for steps in ("10", "100"):
        line = ("--encode", "data/digits/test", "--num", "50", "--ddim", steps)
        diffcli(demo, "sample", "demo", *line, "--out", str(tmp_path / steps))
        told = json.loads((tmp_path / steps / "encoding.json").read_text())
        decibels.append(told["reconstruction"]["psnr_db"])
    with capsys.disabled():
        print(f"\nPSNR {decibels[0]:.1f} dB after 10 steps there and back, {decibels[1]:.1f} dB after 100")
    assert decibels[0] + 3 < decibels[1] >= LEAST_DECIBELS
    assert told["latents"]["mean"] == pytest.approx(0, abs=0.2)
    assert told["latents"]["standard_deviation"] == pytest.approx(1, abs=0.25)
