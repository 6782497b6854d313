"""What the digits presets draw: a reader that has only seen real digits reads the class asked for."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.svm import SVC

from diffcli.config.sections import DataConfig
from diffcli.data.dataset import open_dataset

LEAST_RIGHT = 95
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
