"""What guidance does to digits: an SVM that has only seen real ones reads the wanted class more often.

Early networks are taken on purpose: what is trained to the end is read right without guidance too.
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import SVC

from runs_in_processes import Bench, kill_survivors, make_bench, start

IMAGES = 200
DRAW = ("--num", str(IMAGES), "--class", "0,1,2,3,4,5,6,7,8,9", "--ddim", "25", "--batch-size", "100")
SHORT = ("--threads", "1", "--device", "cpu", "--set", "training.preview_every=0")


@pytest.fixture(autouse=True)
def nothing_left_running():
    yield
    kill_survivors()


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    """A network that learned digits with classes and without, one that knows no classes, and a classifier."""
    made = make_bench(tmp_path_factory.mktemp("guided-digits"))
    digits = ("train", "--preset", "digits", *SHORT)
    for line in (
        (*digits, "--name", "dropping", "--steps", "200", "--set", "training.label_drop=0.1"),
        (*digits, "--name", "free", "--steps", "300", "--set", "model.classes=0"),
        ("train", "--preset", "digits_classifier", *SHORT, "--name", "reader", "--steps", "300"),
    ):
        trained = start(made, *line)
        assert trained.exit_code(600) == 0, trained.errors
    return made


@pytest.fixture(scope="module")
def reader(bench) -> SVC:
    fitted = SVC(C=10).fit(*real_digits(bench, "train"))
    assert fitted.score(*real_digits(bench, "test")) > 0.98
    return fitted


def real_digits(bench, split):
    directory = bench.directory / "data" / "digits" / split
    images = np.load(directory / "images.npy")
    return images.reshape(len(images), -1) / 255, np.load(directory / "labels.npy")


def share_read_right(bench, reader, run, *options):
    """Of images of all ten classes, the share that is read as the class that was wanted."""
    out = bench.directory / "-".join((run, *options))
    sampled = start(bench, "sample", run, *DRAW, *options, "--threads", "1", "--out", str(out))
    assert sampled.exit_code(600) == 0, sampled.errors
    with np.load(out / f"samples_{IMAGES}x8x8x1.npz") as archive:
        samples, wanted = archive["arr_0"], archive["arr_1"]
    assert np.bincount(wanted).tolist() == [IMAGES // 10] * 10
    # no class has become one picture
    assert len(np.unique(samples.reshape(IMAGES, -1), axis=0)) == IMAGES
    share = float((reader.predict(samples.reshape(IMAGES, -1) / 255) == wanted).mean())
    print(f"{run} {' '.join(options)}: {share:.3f}")
    return share


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_weight_above_1_shows_the_class_more_often(bench, reader):
    plain = share_read_right(bench, reader, "dropping", "--cfg", "1")
    two = share_read_right(bench, reader, "dropping", "--cfg", "2")
    three = share_read_right(bench, reader, "dropping", "--cfg", "3")
    assert plain < 0.85
    assert two > plain + 0.1
    assert three > 0.92


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_classifier_shows_its_classes_with_a_network_that_knows_none(bench, reader):
    unguided = share_read_right(bench, reader, "free", "--classifier", "reader", "--guidance", "0")
    guided = share_read_right(bench, reader, "free", "--classifier", "reader", "--guidance", "4")
    assert unguided < 0.2
    assert guided > 0.75


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_classifier_adds_to_a_network_that_knows_the_classes(bench, reader):
    plain = share_read_right(bench, reader, "dropping")
    guided = share_read_right(bench, reader, "dropping", "--classifier", "reader", "--guidance", "4")
    assert guided > plain + 0.1
