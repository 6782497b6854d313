"""What `make demo` draws: a classifier that has only seen real digits reads the class that was asked for."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.svm import SVC

from diffcli.config.sections import DataConfig
from diffcli.data.dataset import open_dataset

LEAST_RIGHT = 95


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


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("solver", [[], ["--ddim", "50"]], ids=["ancestral", "ddim50"])
def test_a_classifier_of_real_digits_reads_the_classes_asked_for(demo, solver, tmp_path):
    images, labels = digits(demo, "train")
    reader = SVC(C=10).fit(images, labels)
    test_images, test_labels = digits(demo, "test")
    assert reader.score(test_images, test_labels) > 0.98
    classes = ",".join(str(digit) for digit in range(10))
    diffcli(
        demo, "sample", "latest", "--num", "100", "--class", classes, "--out", str(tmp_path / "out"), *solver
    )
    with np.load(tmp_path / "out" / "samples_100x8x8x1.npz") as archive:
        samples, asked = archive["arr_0"], archive["arr_1"]
    assert np.bincount(asked).tolist() == [10] * 10
    read = reader.predict(samples.reshape(100, -1) / 255)
    assert (read == asked).sum() >= LEAST_RIGHT
    # not the same picture over and over: each class holds different digits
    assert len(np.unique(samples.reshape(100, -1), axis=0)) == 100
