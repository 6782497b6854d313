"""`prepare cifar10` on archives of the published layout."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from diffcli.commands.prepare_cifar10 import Cifar10Request, prepare_cifar10
from diffcli.data.prepared import PreparedDataset
from diffcli.data.sources import cifar10
from diffcli.errors import CorruptError, DiffcliError, MissingError, UsageError
from diffcli.records.datasets import PrepareListener
from http_server import Behaviour, serving
from published_layouts import (
    CIFAR_LABELS,
    cifar_batch,
    cifar_binary,
    cifar_python,
    noise,
    write_tar,
    write_tree,
    write_zip,
)

NAMES = ("bird", "car", "cat", "deer", "dog", "frog", "horse", "plane", "ship", "truck")
FORMS = {
    "python archive": lambda place: write_tar(place / "cifar-10-python.tar.gz", cifar_python(), "w:gz"),
    "python directory": lambda place: write_tree(place / "x", cifar_python()) / "cifar-10-batches-py",
    "directory above": lambda place: write_tree(place / "x", cifar_python()),
    "binary archive": lambda place: write_tar(place / "cifar-10-binary.tar.gz", cifar_binary(), "w:gz"),
    "binary directory": lambda place: write_tree(place / "x", cifar_binary()) / "cifar-10-batches-bin",
    "zip": lambda place: write_zip(place / "x.zip", cifar_python()),
}


def prepared(place, source, **choices):
    choices = {"allow_partial": True} | choices
    return prepare_cifar10(Cifar10Request(home=place / "data", source=source, **choices))


def all_of(split):
    dataset = PreparedDataset(split.path)
    indices = np.arange(dataset.count)
    return dataset.read(indices), dataset.labels(indices)


@pytest.mark.parametrize("form", FORMS)
def test_images_and_classes(form, tmp_path):
    result = prepared(tmp_path, FORMS[form](tmp_path))
    assert result.name == "cifar10"
    assert [(split.split, split.count) for split in result.splits] == [("train", 20), ("test", 3)]
    train, test = result.splits
    images, labels = all_of(train)
    planes = np.concatenate([noise(4, 3072, seed=number) for number in range(1, 6)])
    assert np.array_equal(images, planes.reshape(20, 3, 32, 32).transpose(0, 2, 3, 1))
    assert train.class_names == test.class_names == NAMES
    # the published label of image i is (i + 4) mod 10; airplanes are planes here, automobiles cars
    shorter = {"airplane": "plane", "automobile": "car"}
    wanted = [CIFAR_LABELS[(number + 4) % 10] for number in range(20)]
    assert [NAMES[label] for label in labels] == [shorter.get(name, name) for name in wanted]
    images, labels = all_of(test)
    assert np.array_equal(images[2].transpose(2, 0, 1).ravel(), noise(3, 3072, seed=6)[2])
    assert labels.tolist() == [7, 1, 0]


def test_the_record(tmp_path):
    source = FORMS["python archive"](tmp_path)
    record = PreparedDataset(prepared(tmp_path, source).splits[0].path).record
    assert (record.name, record.split, record.label_source) == ("cifar10", "train", "source")
    assert (record.height, record.width, record.channels, record.resize_recipe) == (32, 32, 3, "")
    assert record.split_rule == "20 images, where the published train split has 50000 (--allow-partial)"
    assert record.source_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()


@pytest.mark.parametrize("form", ["python directory", "directory above", "binary directory"])
def test_what_is_read_decides_whether_it_is_the_same_source(form, tmp_path):
    source = FORMS[form](tmp_path)

    def sources():
        found = cifar10.read_cifar10(source, scratch=tmp_path, allow_partial=True)
        return [(split.identity(), split.origin()) for split in found]

    before = sources()
    batches = {path for path in source.rglob("*") if "_batch" in path.name and path.is_file()}
    assert sum(origin.size_bytes for _, origin in before) == sum(path.stat().st_size for path in batches)
    (source / ".DS_Store").write_bytes(b"x")
    (source / "more").mkdir()
    assert sources() == before
    # in place, as a program writes that does not replace the file
    changed = next(path for path in batches if path.name.startswith("data_batch_3"))
    os.utime(changed, ns=(1, 1))
    (train, _), (test, _) = sources()
    assert train != before[0][0]
    assert test == before[1][0]


def test_whether_an_archive_is_the_published_one_is_told(tmp_path, monkeypatch):
    source, told = FORMS["binary archive"](tmp_path), []
    listener = PrepareListener(notice=told.append)
    request = Cifar10Request(home=tmp_path / "data", source=source, allow_partial=True)
    prepare_cifar10(request, listener)
    assert [text.split(" is ")[1][:12] for text in told] == ["another file"] * 2
    digest = hashlib.md5(source.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar10, "_ARCHIVES", (cifar10.ARCHIVE.sha256, digest))
    prepare_cifar10(dataclasses.replace(request, force=True), listener)
    assert told[2:] == [
        f"{split}: cifar-10-binary.tar.gz is the published file, by its MD5" for split in ("train", "test")
    ]


def test_a_batch_that_is_far_too_large_is_not_read(tmp_path, monkeypatch):
    source = FORMS["python directory"](tmp_path)
    with (source / "data_batch_2").open("r+b") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(CorruptError, match="no batch of CIFAR-10") as caught:
        prepared(tmp_path, source)
    assert caught.value.where == "68,157,440 bytes are more than one has"


def test_names_are_those_of_the_reference(tmp_path):
    """Class and place in the split, as in cifar_train/frog_00000.png."""
    train, _ = cifar10.read_cifar10(FORMS["python archive"](tmp_path), scratch=tmp_path, allow_partial=True)
    assert [train.name(number) for number in (0, 6, 19)] == [
        "deer_00000.png",
        "plane_00006.png",
        "cat_00019.png",
    ]


def test_once_more_keeps_what_is_there(tmp_path):
    source = FORMS["python archive"](tmp_path)
    prepared(tmp_path, source)
    assert all(split.already_there for split in prepared(tmp_path, source).splits)


def published(place, monkeypatch):
    """The archive of the tests as if it were the published one: its counts, labels and hashes."""
    members = cifar_python()
    splits = []
    for split in cifar10._SPLITS:
        contents = {name: members[f"cifar-10-batches-py/{name}"] for name in split.batches}
        labels = [
            label
            for content in contents.values()
            for label in pickle.loads(content, encoding="latin1")["labels"]
        ]
        splits.append(
            dataclasses.replace(
                split,
                count=len(labels),
                batches={name: hashlib.md5(content).hexdigest() for name, content in contents.items()},
                first_labels=tuple(labels[:3]),
            )
        )
    monkeypatch.setattr(cifar10, "_SPLITS", tuple(splits))
    return members


def test_the_published_archive_needs_no_allowance(tmp_path, monkeypatch):
    members = published(tmp_path, monkeypatch)
    source = write_tar(tmp_path / "x.tar.gz", members, "w:gz")
    result = prepared(tmp_path, source, allow_partial=False)
    record = PreparedDataset(result.splits[1].path).record
    assert record.split_rule == "the published test split"


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


# every change of the published archive, and what is said of it without an allowance
DIFFERENT = {
    "a batch is missing": (
        lambda m: {k: v for k, v in m.items() if not k.endswith("batch_3")},
        "train has 16 images",
    ),
    "test is missing": (lambda m: {k: v for k, v in m.items() if "test_" not in k}, "test has 0 images"),
    "a pixel differs": (
        lambda m: (
            m | {"cifar-10-batches-py/data_batch_2": flipped(m["cifar-10-batches-py/data_batch_2"], -5000)}
        ),
        "data_batch_2 has MD5",
    ),
    "other labels": (
        lambda m: m | {"cifar-10-batches-py/test_batch": cifar_batch(noise(3, 3072), [2, 1, 0])},
        "the first labels of test are [2, 1, 0]",
    ),
}


@pytest.mark.parametrize("change", DIFFERENT)
def test_what_differs_from_the_published_is_refused_unless_allowed(change, tmp_path, monkeypatch):
    members = published(tmp_path, monkeypatch)
    changed, words = DIFFERENT[change]
    source = write_tar(tmp_path / "x.tar", changed(members))
    with pytest.raises(CorruptError, match="is not the published CIFAR-10") as caught:
        prepared(tmp_path, source, allow_partial=False)
    assert words in caught.value.where
    assert "--allow-partial" in caught.value.remedy
    assert not (tmp_path / "data").exists()
    assert prepared(tmp_path, source).splits


def batches(batch: bytes) -> dict[str, bytes]:
    return {"data_batch_1": batch}


class Trap:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (self.canary,)


PIXELS = noise(2, 3072)
WRONG = {
    "nothing there": (None, MissingError, "there is no"),
    "no archive": (b"text\n" * 200, MissingError, "no tar, tar.gz or zip"),
    "another archive": ({"photos/cat_1.png": b"x"}, MissingError, "holds no batches"),
    "an outside name": ({"../data_batch_1": b"x"}, CorruptError, "a place outside"),
    "an empty batch": (batches(b""), CorruptError, "no batch of CIFAR-10"),
    "half a batch": (batches(cifar_batch(PIXELS, [1, 2])[:3000]), CorruptError, "no batch of CIFAR-10"),
    "a trap": (batches(pickle.dumps({"data": Trap("canary")}, 2)), CorruptError, "no batch of CIFAR-10"),
    "no dictionary": (batches(pickle.dumps([1, 2], 2)), CorruptError, "`data` is no array"),
    "other keys": (batches(pickle.dumps({"fine_labels": [1]}, 2)), CorruptError, "`data` is no array"),
    "other sizes": (batches(cifar_batch(noise(2, 100), [1, 2])), CorruptError, "`data` is no array"),
    "fewer labels": (batches(cifar_batch(PIXELS, [1])), CorruptError, "2 images and 1 labels"),
    "a label of ten": (batches(cifar_batch(PIXELS, [1, 10])), CorruptError, "a label is 10"),
    "a huge label": (batches(cifar_batch(PIXELS, [1, 70_000])), CorruptError, "`labels` holds 70000"),
    "a negative label": (batches(cifar_batch(PIXELS, [1, -1])), CorruptError, "a label is -1"),
    "a text as a label": (batches(cifar_batch(PIXELS, ["1", "2"])), CorruptError, "`labels` is no list"),
    "half a binary batch": ({"data_batch_1.bin": bytes(3000)}, CorruptError, "no whole number of images"),
    "a binary label": ({"data_batch_1.bin": b"\x0a" + bytes(3072)}, CorruptError, "a label is 10"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_inputs(wrong, tmp_path, monkeypatch):
    content, kind, words = WRONG[wrong]
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "x.tar"
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content is not None:
        write_tar(source, content)
    with pytest.raises(DiffcliError) as caught:
        prepared(tmp_path, source)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert caught.value.remedy
    assert {path.name for path in tmp_path.iterdir()} <= {"x.tar"}


def test_a_cut_archive_is_refused(tmp_path):
    source = FORMS["python archive"](tmp_path)
    source.write_bytes(source.read_bytes()[:-2000])
    with pytest.raises(CorruptError, match="damaged"):
        prepared(tmp_path, source)


def test_a_download_of_another_file_is_refused(tmp_path):
    with serving(b"another archive", Behaviour()) as server:
        with pytest.raises(CorruptError, match="another file than the published"):
            prepared(tmp_path, None, url=server.url)
        assert not (tmp_path / "data" / ".downloads").exists()
    with pytest.raises(UsageError, match="no address"):
        prepared(tmp_path, None, url="here.tar.gz")


def mirrored(server, content, monkeypatch):
    """The server has the published archive."""
    file = dataclasses.replace(
        cifar10.ARCHIVE,
        url=server.url,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setattr("diffcli.commands.prepare_cifar10.ARCHIVE", file)


def test_a_download_is_kept_for_the_next_time(tmp_path, monkeypatch):
    content = FORMS["python archive"](tmp_path).read_bytes()
    with serving(content) as server:
        mirrored(server, content, monkeypatch)
        for _ in range(2):
            result = prepared(tmp_path, None, force=True)
        assert len(server.asked) == 1
    assert (tmp_path / "data" / ".downloads" / "cifar-10-python.tar.gz").read_bytes() == content
    assert [split.count for split in result.splits] == [20, 3]


def test_what_is_there_is_kept_without_the_archive(tmp_path, monkeypatch):
    """Also when it was prepared from a copy that lies elsewhere; a missing split is worth the download."""
    copy = FORMS["python archive"](tmp_path)
    content = copy.read_bytes()
    prepared(tmp_path, copy)
    copy.unlink()
    with serving(content) as server:
        mirrored(server, content, monkeypatch)
        assert all(split.already_there for split in prepared(tmp_path, None).splits)
        assert not server.asked
        shutil.rmtree(tmp_path / "data" / "cifar10" / "test")
        found = prepared(tmp_path, None).splits
        assert [(split.split, split.already_there) for split in found] == [("train", True), ("test", False)]
        assert len(server.asked) == 1


def test_what_is_there_came_from_the_same_content_wherever_that_lies(tmp_path):
    place = FORMS["python directory"](tmp_path)
    prepared(tmp_path, place)
    (place / ".DS_Store").write_bytes(b"x")
    assert all(split.already_there for split in prepared(tmp_path, place).splits)
    moved = place.rename(place.with_name("moved"))
    assert all(split.already_there for split in prepared(tmp_path, moved).splits)
    # the same bytes in all, another pixel
    (batch,) = moved.rglob("data_batch_3")
    content = bytearray(batch.read_bytes())
    content[content.index(noise(4, 3072, seed=3).tobytes()) + 5] ^= 1
    batch.write_bytes(content)
    with pytest.raises(UsageError, match="from other files, or from another place") as caught:
        prepared(tmp_path, moved)
    assert moved.as_uri() in caught.value.where


def test_the_layout_of_the_reference(tmp_path):
    """cifar_train/ and cifar_test/, class and place in the split: the files that its script writes."""
    source = FORMS["python archive"](tmp_path)
    result = prepared(tmp_path, source, layout="folder")
    assert [split.path.name for split in result.splits] == ["cifar_train", "cifar_test"]
    train = result.splits[0].path
    names = sorted(path.name for path in train.iterdir())
    assert len(names) == 20
    assert {"deer_00000.png", "dog_00001.png", "plane_00006.png", "car_00007.png"} <= set(names)
    packed = PreparedDataset(prepared(tmp_path / "b", source).splits[0].path)
    with Image.open(train / "plane_00006.png") as image:
        assert np.array_equal(np.asarray(image), packed.read(np.array([6]))[0])
