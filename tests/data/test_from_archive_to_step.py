"""Every source by its command: from an archive of the published layout to a trained step."""

from __future__ import annotations

import json
import signal
import time

import pytest

from aftermath import CORRUPT, MISSING, USAGE, assert_ended, listed_runs
from http_server import Behaviour, serving
from published_layouts import (
    chrabaszcz_zips,
    cifar_python,
    class_map_text,
    devkit_members,
    encoded,
    imagenet_train,
    imagenet_train_tar,
    imagenet_val,
    lsun_records,
    lsun_zip,
    noise,
    npz,
    pixelrnn_members,
    write_tar,
    write_zip,
)
from runs_in_processes import Bench, fork, kill_survivors

PRESET = """
[data]
resolution = {resolution}

[model]
channels = 32
channel_mult = [1]
res_blocks = 1
attention_resolutions = []
classes = {classes}

[diffusion]
steps = 20

[training]
steps = 1
batch_size = 4
save_every = 1
"""


@pytest.fixture
def place(tmp_path):
    yield Bench(directory=tmp_path)
    kill_survivors()


def cifar10(place):
    write_tar(place / "cifar-10-python.tar.gz", cifar_python(), "w:gz")
    return ("cifar10", "--source", "cifar-10-python.tar.gz"), "cifar10", 32, 10


def pixelrnn(place):
    write_tar(place / "train_64x64.tar", pixelrnn_members("train_64x64", 4))
    write_tar(place / "valid_64x64.tar", pixelrnn_members("valid_64x64", 2))
    given = ("--train", "train_64x64.tar", "--val", "valid_64x64.tar")
    return ("imagenet64", "--variant", "pixelrnn", *given), "imagenet64", 64, 0


def chrabaszcz(place):
    first, second, val = chrabaszcz_zips(place)
    (place / "map_clsloc.txt").write_bytes(class_map_text())
    given = ("--train", first.name, "--train", second.name, "--val", val.name)
    return ("imagenet64", "--variant", "chrabaszcz", *given), "imagenet64_chrabaszcz", 64, 4


def imagenet(place):
    imagenet_train_tar(place / "ILSVRC2012_img_train.tar", imagenet_train())
    write_tar(place / "ILSVRC2012_img_val.tar", imagenet_val())
    ids = {1: "n02119789", 2: "n02100735", 3: "n01440764"}
    write_tar(place / "ILSVRC2012_devkit_t12.tar.gz", devkit_members([3, 1, 1, 2], ids), "w:gz")
    given = ("--train", "ILSVRC2012_img_train.tar", "--val", "ILSVRC2012_img_val.tar")
    return ("imagenet", "--size", "32", *given), "imagenet_32", 32, 3


def lsun(place):
    lsun_zip(place / "bedroom_train_lmdb.zip", lsun_records())
    given = ("--size", "32", "--train", "bedroom_train_lmdb.zip")
    return ("lsun", "--category", "bedroom", *given), "lsun_bedroom_32", 32, 0


SOURCES = [cifar10, pixelrnn, chrabaszcz, imagenet, lsun]


@pytest.mark.parametrize("source", SOURCES)
def test_from_the_archive_to_a_trained_step(source, place):
    arguments, name, resolution, classes = source(place.directory)
    refused = fork(place, "prepare", *arguments)
    assert_ended(refused, CORRUPT, "is not the published", "the published one", "--allow-partial")
    made = fork(place, "prepare", *arguments, "--allow-partial")
    assert_ended(made, 0, "next: diffcli train --preset")
    rows = dict(row.split("\t") for row in made.output.splitlines())
    assert rows["train"] == f"data/{name}/train"
    (place.directory / "tiny.toml").write_text(PRESET.format(resolution=resolution, classes=classes))
    train = ("train", "--preset", "./tiny.toml", "--device", "cpu", "--set", f"data.name={name}")
    assert_ended(fork(place, *train), 0, "saved step 1")
    assert [run["state"] for run in listed_runs(place)] == ["completed"]
    assert not list((place.directory / "data").glob(".*"))


OWN = {
    "x.zip": lambda path: write_zip(path, {"00000/a.png": encoded(noise(1, 40, 40, 3)[0])} | DATASET_JSON),
    "x.tar": lambda path: write_tar(path, {"cat_1.png": encoded(noise(1, 40, 40, 3)[0])}),
    "x.npz": lambda path: path.write_bytes(npz(arr_0=noise(3, 32, 32, 3), arr_1=[0, 1, 1])),
}
DATASET_JSON = {"dataset.json": json.dumps({"labels": [["00000/a.png", 3]]}).encode()}


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("x.zip", "4 classes by dataset.json"),
        ("x.tar", "by filename: cat"),
        ("x.npz", "2 classes by source: 0, 1"),
    ],
)
def test_own_images_from_a_file_to_a_trained_step(file, told, place):
    OWN[file](place.directory / file)
    made = fork(place, "prepare", "folder", "--source", file, "--size", "32", "--name", "own")
    assert_ended(made, 0, told)
    (place.directory / "tiny.toml").write_text(PRESET.format(resolution=32, classes=0))
    train = ("train", "--preset", "./tiny.toml", "--device", "cpu", "--set", "data.name=own")
    assert_ended(fork(place, *train), 0, "saved step 1")


def test_images_without_classes_are_said_to_have_none(place):
    write_zip(place.directory / "x.zip", {"a.png": encoded(noise(1, 8, 8, 3)[0])})
    assert_ended(fork(place, "prepare", "folder", "x.zip", "--size", "8"), 0, "1 images", "; no classes")


# ---- what is said of what is missing ----

REFUSED = [
    (("cifar10", "--source", "gone.tar.gz"), MISSING, "there is no gone.tar.gz"),
    (("cifar10", "--source", "x", "--url", "http://x"), USAGE, "--url is of no use"),
    (("cifar10", "--url", "x"), USAGE, "x is no address of a file to download"),
    (("imagenet64", "--variant", "pixelrnn"), MISSING, "are dead"),
    (("imagenet64", "--variant", "chrabaszcz"), USAGE, "wants a login"),
    (("imagenet64", "--variant", "chrabaszcz", "--url", "http://x"), USAGE, "wants a login"),
    (("imagenet64", "--variant", "pixelrnn", "--train", "a", "--train", "b"), USAGE, "one training file"),
    (("imagenet64", "--variant", "chrabaszcz", "--train", "a"), MISSING, "there is no a"),
    (("imagenet", "--size", "64"), USAGE, "wants a login"),
    (("imagenet", "--size", "64", "--val", "gone.tar"), MISSING, "there is no gone.tar"),
    (("lsun", "--category", "bedroom", "--train", "gone.zip"), MISSING, "there is no gone.zip"),
    (("lsun", "--category", "cat", "--val", "gone.zip"), USAGE, "LSUN cat has no split val"),
    (("folder", "--size", "8", "--source", "gone.npz"), MISSING, "there is no gone.npz"),
]


def test_what_is_missing_or_cannot_be_meant(place):
    for arguments, status, words in REFUSED:
        assert_ended(fork(place, "prepare", *arguments), status, words)
        assert not (place.directory / "data").exists(), arguments


@pytest.mark.parametrize(
    ("day", "status", "words"),
    [
        (Behaviour(status=404), MISSING, "the link is dead"),
        (Behaviour(status=403), MISSING, "wants a login"),
        (Behaviour(kind="text/html"), MISSING, "is a web page"),
        (Behaviour(), CORRUPT, "another file than the published"),
    ],
)
def test_a_mirror_that_does_not_have_the_file(day, status, words, place):
    with serving(b"x" * 1000, day) as server:
        refused = fork(place, "prepare", "cifar10", "--url", server.url)
        assert_ended(refused, status, words, "--source")
    assert [path for path in place.directory.rglob("data/**/*") if path.is_file()] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_download_whose_server_is_silent(number, place):
    size_bytes = 170_498_071
    content = bytes(10**6)
    with serving(content, Behaviour(claims=size_bytes, stall_after=10**6)) as server:
        download = fork(place, "prepare", "cifar10", "--url", server.url)
        part = place.directory / "data/.downloads/cifar-10-python.tar.gz.part"
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size >= 9 * 10**5):
            assert time.monotonic() < deadline, download.errors
            time.sleep(0.05)
        asked_at = time.monotonic()
        download.send(number)
        assert_ended(download, 128 + number, "bytes, which are kept", "goes on from there")
        assert time.monotonic() - asked_at < 10
        kept = part.stat().st_size
        again = fork(place, "prepare", "cifar10", "--url", server.url)
        while len(server.asked) < 2:
            assert time.monotonic() < deadline, again.errors
            time.sleep(0.05)
        again.kill()
        assert server.asked[1]["Range"] == f"bytes={kept}-"
