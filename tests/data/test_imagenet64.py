"""`prepare imagenet64` on archives of the two published layouts."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tarfile

import numpy as np
import pytest

from diffcli.commands.prepare_imagenet64 import ImageNet64Request, prepare_imagenet64
from diffcli.data.prepared import PreparedDataset
from diffcli.data.sources import chrabaszcz, pixelrnn
from diffcli.errors import CorruptError, DiffcliError, MissingError
from http_server import Behaviour, serving
from published_layouts import (
    CLASS_MAP,
    chrabaszcz_npz,
    chrabaszcz_zips,
    class_map_text,
    encoded,
    noise,
    npz,
    pixelrnn_members,
    write_tar,
    write_tree,
    write_zip,
)


def prepared(place, variant, **choices):
    choices = {"allow_partial": True} | choices
    return prepare_imagenet64(ImageNet64Request(home=place / "data", variant=variant, **choices))


def all_of(split):
    dataset = PreparedDataset(split.path)
    return dataset.read(np.arange(dataset.count))


# ---- PixelRNN ----


def pixelrnn_tars(place):
    train = write_tar(place / "train_64x64.tar", pixelrnn_members("train_64x64", 5))
    return train, write_tar(place / "valid_64x64.tar", pixelrnn_members("valid_64x64", 3))


def test_pixelrnn_from_its_tars(tmp_path):
    train, val = pixelrnn_tars(tmp_path)
    result = prepared(tmp_path, "pixelrnn", train=[train], val=[val])
    assert result.name == "imagenet64"
    assert [(split.split, split.count, split.class_names) for split in result.splits] == [
        ("train", 5, ()),
        ("val", 3, ()),
    ]
    assert np.array_equal(all_of(result.splits[0]), noise(5, 64, 64, 3, seed=5))
    assert np.array_equal(all_of(result.splits[1]), noise(3, 64, 64, 3, seed=3))
    record = PreparedDataset(result.splits[0].path).record
    assert (record.variant, record.label_source, record.resize_recipe) == ("pixelrnn", "none", "")
    assert record.split_rule == "5 images, where the published train split has 1281149 (--allow-partial)"
    assert record.source_sha256 == hashlib.sha256(train.read_bytes()).hexdigest()


def test_pixelrnn_from_directories_is_the_same(tmp_path):
    tars = prepared(
        tmp_path / "a", "pixelrnn", train=[write_tar(tmp_path / "x.tar", pixelrnn_members("t", 5))]
    )
    tree = write_tree(tmp_path / "tree", pixelrnn_members("train_64x64", 5)) / "train_64x64"
    trees = prepared(tmp_path / "b", "pixelrnn", train=[tree])
    hashes = {PreparedDataset(result.splits[0].path).content_hash for result in (tars, trees)}
    assert len(hashes) == 1


def test_pixelrnn_of_the_published_count_needs_no_allowance(tmp_path, monkeypatch):
    train, val = pixelrnn_tars(tmp_path)
    with pytest.raises(CorruptError, match="is not the published") as caught:
        prepared(tmp_path, "pixelrnn", train=[train], allow_partial=False)
    assert caught.value.where == "train has 5 images, the published one 1,281,149"
    assert not (tmp_path / "data").exists()
    monkeypatch.setattr(pixelrnn, "COUNTS", {"train": 5, "val": 3})
    assert len(prepared(tmp_path, "pixelrnn", train=[train], val=[val], allow_partial=False).splits) == 2


def test_pixelrnn_links_are_dead_and_a_mirror_is_not(tmp_path, monkeypatch):
    with pytest.raises(MissingError, match="are dead") as caught:
        prepared(tmp_path, "pixelrnn")
    assert "96816a530ee002254d29bf7a61c0c158d3dedc3b" in caught.value.remedy
    train, _ = pixelrnn_tars(tmp_path)
    content = train.read_bytes()
    small = {
        split: dataclasses.replace(file, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for split, file in pixelrnn.ARCHIVES.items()
    }
    monkeypatch.setattr("diffcli.commands.prepare_imagenet64.ARCHIVES", small)
    with serving(content, Behaviour(cut_after=9000), Behaviour()) as server:
        result = prepared(tmp_path, "pixelrnn", url=f"{server.base}/")
        assert [split.count for split in result.splits] == [5, 5]
        asked = len(server.asked)
        for file in (tmp_path / "data" / ".downloads").iterdir():
            assert file.name in ("train_64x64.tar", "valid_64x64.tar")
            assert file.read_bytes() == content
            file.unlink()
        # what is there is kept without fetching it again, and without a mirror
        assert all(split.already_there for split in prepared(tmp_path, "pixelrnn").splits)
        assert len(server.asked) == asked


PIXELRNN_WRONG = {
    "nothing there": (None, MissingError, "there is no"),
    "no tar": (b"PK\x03\x04" + bytes(600), MissingError, "neither a directory nor a tar"),
    "no images": ({"readme.txt": b"x"}, MissingError, "holds no images"),
    "an outside name": ({"../x.png": b"x"}, CorruptError, "a place outside"),
    "a long name": ({f"{'a' * 250}.png": b"x"}, CorruptError, "a name that is too long"),
    "another size": ({"t/1.png": encoded(noise(1, 32, 64, 3)[0])}, CorruptError, "64x32 in place of 64x64"),
    "a broken image": ({"t/1.png": encoded(noise(1, 64, 64, 3)[0])[:99]}, CorruptError, "1 of 1 images"),
}


@pytest.mark.parametrize("wrong", PIXELRNN_WRONG)
def test_pixelrnn_wrong_inputs(wrong, tmp_path):
    content, kind, words = PIXELRNN_WRONG[wrong]
    source = tmp_path / "x.tar"
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content is not None:
        write_tar(source, content)
    with pytest.raises(DiffcliError) as caught:
        prepared(tmp_path, "pixelrnn", train=[source])
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_a_cut_tar_is_refused_wherever_it_is_cut(tmp_path):
    content = write_tar(tmp_path / "x.tar", pixelrnn_members("t", 3)).read_bytes()
    for kept in range(600, len(content) - 10240, 4096):
        (tmp_path / "x.tar").write_bytes(content[:kept])
        with pytest.raises(CorruptError, match="damaged"):
            prepared(tmp_path, "pixelrnn", train=[tmp_path / "x.tar"])


def test_links_are_passed_over_and_equal_names_count_once(tmp_path):
    members = pixelrnn_members("t", 3)
    source = write_tar(tmp_path / "x.tar", members | {"t/0000002.png": members["t/0000001.png"]})
    with tarfile.open(source, "a") as archive:
        link = tarfile.TarInfo("t/0000009.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    write_tar(source, {"t/0000003.png": members["t/0000001.png"]}, "a")
    result = prepared(tmp_path, "pixelrnn", train=[source])
    assert result.passed_over == 1
    images = all_of(result.splits[0])
    assert len(images) == 3
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])


# ---- Chrabaszcz et al. ----


def planes_of(seed, count=3):
    return noise(count, 12288, seed=seed).reshape(count, 3, 64, 64).transpose(0, 2, 3, 1)


def zips_form(place):
    first, second, val = chrabaszcz_zips(place)
    (place / "map_clsloc.txt").write_bytes(class_map_text())
    return {"train": [first, second], "val": [val]}


def directory_form(place):
    zips_form(place)
    return {"train": [place], "val": [place]}


def npz_form(place):
    (place / "map_clsloc.txt").write_bytes(class_map_text())
    names = {f"train_data_batch_{number}.npz": number for number in range(1, 11)} | {"val_data.npz": 20}
    for name, seed in names.items():
        (place / name).write_bytes(chrabaszcz_npz(seed))
    return {"train": [place], "val": [place / "val_data.npz"]}


@pytest.mark.parametrize("form", [zips_form, directory_form, npz_form])
def test_chrabaszcz(form, tmp_path):
    (tmp_path / "in").mkdir()
    result = prepared(tmp_path, "chrabaszcz", **form(tmp_path / "in"))
    assert result.name == "imagenet64_chrabaszcz"
    train, val = result.splits
    assert (train.count, val.count) == (30, 3)
    wanted = np.concatenate([planes_of(number) for number in range(1, 11)])
    assert np.array_equal(all_of(train), wanted)
    assert np.array_equal(all_of(val), planes_of(20))
    # the numbers of the files are those of the map, ours the places among the sorted ids
    assert train.class_names == val.class_names == ("n01440764", "n02100735", "n02110185", "n02119789")
    numbers = [(seed + i) % 4 + 1 for seed in range(1, 11) for i in range(3)]
    labels = PreparedDataset(train.path).labels(np.arange(30))
    assert [train.class_names[label] for label in labels] == [CLASS_MAP[number] for number in numbers]
    assert PreparedDataset(train.path).record.variant == "chrabaszcz"
    # nothing that was unpacked is left
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["imagenet64_chrabaszcz"]
    assert all(path.suffix in (".zip", ".npz", ".txt") for path in (tmp_path / "in").iterdir())


def test_names_tell_the_part_and_the_row(tmp_path):
    given = zips_form(tmp_path)
    files = chrabaszcz.GivenFiles(
        split="train", locations=given["train"], class_map=CLASS_MAP, scratch=tmp_path
    )
    source = chrabaszcz.open_chrabaszcz(files, allow_partial=True)
    assert [source.name(index) for index in (0, 2, 3, 29)] == [
        "train_data_batch_1.npz, row 0",
        "train_data_batch_1.npz, row 2",
        "train_data_batch_2.npz, row 0",
        "train_data_batch_10.npz, row 2",
    ]


def test_chrabaszcz_counts_and_parts_are_checked(tmp_path, monkeypatch):
    given = zips_form(tmp_path)
    with pytest.raises(CorruptError, match="is not the published") as caught:
        prepared(tmp_path, "chrabaszcz", train=given["train"][:1], allow_partial=False)
    told = caught.value.where
    assert "train_data_batch_6.npz is missing" in told
    assert "train_data_batch_10.npz is missing" in told
    assert "and 2 more" in told
    assert prepared(tmp_path, "chrabaszcz", train=given["train"][:1]).splits[0].count == 15
    monkeypatch.setattr(chrabaszcz, "COUNTS", {"train": 30, "val": 3})
    monkeypatch.setattr(chrabaszcz, "CLASSES", 4)
    assert prepared(tmp_path / "b", "chrabaszcz", **given, allow_partial=False).splits[0].count == 30


def test_without_a_class_map_it_says_what_is_missing(tmp_path):
    given = zips_form(tmp_path)
    (tmp_path / "map_clsloc.txt").rename(tmp_path / "elsewhere.txt")
    with pytest.raises(MissingError, match="without their map") as caught:
        prepared(tmp_path, "chrabaszcz", **given)
    assert "--class-map" in caught.value.remedy
    result = prepared(tmp_path, "chrabaszcz", **given, class_map=tmp_path / "elsewhere.txt")
    assert result.splits[0].count == 30


class Trap:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (self.canary,)


PART = "train_data_batch_1.npz"
HUGE = npz(compressed=True, data=np.zeros((6000, 12288), np.uint8), labels=[1] * 6000)
CHRABASZCZ_WRONG = {
    "nothing of it": ({"other.npz": b"x"}, MissingError, "holds nothing of the train split"),
    "no npz": ({PART: b"text"}, CorruptError, "damaged"),
    "half an npz": ({PART: chrabaszcz_npz(2)[:9000]}, CorruptError, "damaged"),
    "no labels": ({PART: npz(data=noise(1, 12288))}, CorruptError, "no usable array 'labels'"),
    "no data": ({PART: npz(labels=[1])}, CorruptError, "no usable array 'data'"),
    "another size": ({PART: chrabaszcz_npz(2, data=noise(3, 3072))}, CorruptError, "no part of ImageNet"),
    "floats": ({PART: chrabaszcz_npz(2, data=np.ones((3, 12288)))}, CorruptError, "data of float64"),
    "fewer labels": ({PART: chrabaszcz_npz(2, labels=[1])}, CorruptError, "no part of ImageNet"),
    "labels of text": (
        {PART: chrabaszcz_npz(2, labels=["a", "b", "c"])},
        CorruptError,
        "no part of ImageNet",
    ),
    "an unknown label": (
        {PART: chrabaszcz_npz(2, labels=[1, 2, 5])},
        CorruptError,
        "a label 5 that the class map",
    ),
    "a label of 0": (
        {PART: chrabaszcz_npz(2, labels=[1, 2, 0])},
        CorruptError,
        "a label 0 that the class map",
    ),
    "by columns": (
        {PART: chrabaszcz_npz(2, data=np.asfortranarray(noise(3, 12288)))},
        CorruptError,
        "damaged",
    ),
    "a trap": (
        {PART: chrabaszcz_npz(2, labels=np.array([Trap("canary")] * 3, dtype=object))},
        CorruptError,
        "damaged",
    ),
    "a bomb": ({PART: HUGE}, CorruptError, "more than 200 times its size"),
    "an outside name": ({f"../{PART}": chrabaszcz_npz(2)}, CorruptError, "a place outside"),
}


@pytest.mark.parametrize("wrong", CHRABASZCZ_WRONG)
def test_chrabaszcz_wrong_inputs(wrong, tmp_path, monkeypatch):
    members, kind, words = CHRABASZCZ_WRONG[wrong]
    monkeypatch.chdir(tmp_path)
    source = write_zip(tmp_path / "x.zip", members)
    (tmp_path / "map_clsloc.txt").write_bytes(class_map_text())
    with pytest.raises(DiffcliError) as caught:
        prepared(tmp_path, "chrabaszcz", train=[source])
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map_clsloc.txt", "x.zip"]


BAD_MAPS = {
    "no text": b"\xff\xfe\x00",
    "other words": b"kit_fox 1 n02119789\n",
    "a number twice": b"n02119789 1 a\nn02100735 1 b\n",
    "an id twice": b"n02119789 1 a\nn02119789 2 b\n",
    "a huge number": b"n02119789 1000000000 a\n",
    "a negative number": b"n02119789 -1 a\n",
}


@pytest.mark.parametrize("bad", BAD_MAPS)
def test_bad_class_maps(bad, tmp_path):
    given = zips_form(tmp_path)
    (tmp_path / "map_clsloc.txt").write_bytes(BAD_MAPS[bad])
    with pytest.raises(CorruptError, match="does not tell classes"):
        prepared(tmp_path, "chrabaszcz", **given)
