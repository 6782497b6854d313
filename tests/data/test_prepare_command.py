"""`prepare digits` and `prepare folder` as use cases, on real files and real signals."""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from diffcli.commands.prepare import (
    DigitsRequest,
    FolderRequest,
    default_name,
    prepare_digits,
    prepare_folder,
)
from diffcli.data.prepared import PreparedDataset, prepared_names
from diffcli.data.sources.digits import DigitsSource, gray_of_ink
from diffcli.errors import CorruptError, InterruptedRunError, MissingError, StorageError, UsageError
from diffcli.records.datasets import PrepareListener
from interrupting import interrupting


def everything_under(path):
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


def test_the_embedded_digits_are_those_of_scikit_learn():
    original = load_digits()
    train, test = DigitsSource("train"), DigitsSource("test")
    number = np.arange(1797)
    in_test = number * 297 % 1797 < 297
    for split, chosen in ((train, ~in_test), (test, in_test)):
        assert np.array_equal(split.labels, original.target[chosen])
        ink = original.images[chosen]
        assert np.abs(split.images[..., 0] - ink * 255 / 16).max() <= 0.5
        assert np.bincount(split.labels, minlength=10).min() >= 25
    assert (len(train.images), len(test.images)) == (1500, 297)


def test_gray_levels_of_the_ink():
    levels = gray_of_ink(np.arange(17, dtype=np.uint8))
    assert levels.dtype == np.uint8
    assert (levels[0], levels[1], levels[8], levels[15], levels[16]) == (0, 16, 128, 239, 255)
    assert len(set(levels.tolist())) == 17


def test_digits(tmp_path):
    told = []
    result = prepare_digits(
        DigitsRequest(home=tmp_path), PrepareListener(progress=lambda *done: told.append(done))
    )
    assert told == [(done, 1797) for done in range(1, 1798)]
    assert result.name == "digits"
    assert [(split.split, split.count, split.already_there) for split in result.splits] == [
        ("train", 1500, False),
        ("test", 297, False),
    ]
    for split in result.splits:
        assert (split.height, split.width, split.channels) == (8, 8, 1)
        assert split.class_names == tuple("0123456789")
        assert split.size_bytes == sum(path.stat().st_size for path in split.path.iterdir())
        dataset = PreparedDataset(split.path)
        dataset.require_intact()
        assert "1797" in dataset.record.split_rule
        assert dataset.record.source_url.startswith("https://archive.ics.uci.edu")


def test_digits_again_are_found_repaired_or_replaced(tmp_path):
    request = DigitsRequest(home=tmp_path)
    prepare_digits(request)
    before = (tmp_path / "digits" / "train" / "images.npy").stat().st_ino
    assert all(split.already_there for split in prepare_digits(request).splits)
    assert (tmp_path / "digits" / "train" / "images.npy").stat().st_ino == before

    test_labels = tmp_path / "digits" / "test" / "labels.npy"
    content = bytearray(test_labels.read_bytes())
    content[-8] ^= 1
    test_labels.write_bytes(content)
    with pytest.raises(CorruptError, match="digits/test") as caught:
        prepare_digits(request)
    assert "--force" in caught.value.remedy
    assert not any(split.already_there for split in prepare_digits(replace(request, force=True)).splits)
    assert all(split.already_there for split in prepare_digits(request).splits)


def test_something_else_named_digits_is_not_taken_for_them(tmp_path):
    photos(tmp_path / "photos")
    home = tmp_path / "data"
    prepare_folder(FolderRequest(home=home, source=tmp_path / "photos", size=8, name="digits"))
    with pytest.raises(UsageError, match="other images"):
        prepare_digits(DigitsRequest(home=home))


def photos(root, count=6):
    root.mkdir(parents=True)
    modes = ("RGB", "L", "P", "RGBA", "CMYK", "1")
    for number in range(count):
        mode = modes[number % len(modes)]
        shade = Image.new("L", (50 - number % 7, 30 + number), 40 * number % 256).convert("RGB").convert(mode)
        suffix = "jpg" if mode == "CMYK" else "PNG"
        shade.save(root / f"{'xyz'[number % 3]}_{number}.{suffix}")
    return root


def test_folder(tmp_path):
    source = photos(tmp_path / "My photos!")
    told = []
    request = FolderRequest(home=tmp_path / "data", source=source, size=16)
    result = prepare_folder(request, PrepareListener(progress=lambda *done: told.append(done)))
    assert told == [(done, 6) for done in range(1, 7)]
    (split,) = result.splits
    assert result.name == "My_photos_16"
    assert split.path == tmp_path / "data" / "My_photos_16" / "train"
    assert (split.count, split.height, split.width, split.channels) == (6, 16, 16, 3)
    assert split.class_names == ("x", "y", "z")
    assert (split.label_source, split.already_there) == ("filename", False)
    dataset = PreparedDataset(split.path)
    dataset.require_intact()
    assert dataset.record.resize_recipe == "guided"
    assert dataset.record.source_url == source.as_uri()
    assert dataset.record.source_bytes == sum(path.stat().st_size for path in source.iterdir())
    assert dataset.labels(np.arange(6)).tolist() == [0, 0, 1, 1, 2, 2]
    # listed x_0 x_3 y_1 y_4 z_2 z_5; black and white images dither, so their mean counts
    means = dataset.read(np.arange(6)).mean(axis=(1, 2, 3))
    assert np.abs(means - [0, 120, 40, 160, 80, 200]).max() < 30
    assert everything_under(tmp_path / "data") == sorted(
        ["My_photos_16", "My_photos_16/train"]
        + [f"My_photos_16/train/{name}" for name in ("dataset.json", "images.npy", "labels.npy")]
    )


def test_folder_choices(tmp_path):
    source = tmp_path / "photos"
    photos(source / "one")
    photos(source / "two")
    request = FolderRequest(
        home=tmp_path / "data",
        source=source,
        size=64,
        recipe="improved",
        labels="directories",
        channels=1,
        name="mine",
    )
    (split,) = prepare_folder(request).splits
    assert split.path == tmp_path / "data" / "mine" / "train"
    assert (split.channels, split.class_names, split.label_source) == (1, ("one", "two"), "directories")
    assert PreparedDataset(split.path).read(np.arange(2)).shape == (2, 64, 64, 1)
    with pytest.raises(UsageError, match="already there"):
        prepare_folder(request)
    assert prepare_folder(replace(request, force=True, size=8)).splits[0].height == 8


def test_every_bad_image_is_listed_and_nothing_is_left_behind(tmp_path):
    source = photos(tmp_path / "photos", count=30)
    whole = (source / "x_0.PNG").read_bytes()
    (source / "a_text.png").write_text("not an image\n")
    (source / "deep").mkdir()
    (source / "deep" / "empty_1.webp").touch()
    (source / "z_cut.png").write_bytes(whole[: len(whole) // 2])
    (source / "zz_link.png").symlink_to("nowhere")
    before = everything_under(tmp_path)
    told = []
    with pytest.raises(CorruptError, match="4 of 34 images") as caught:
        prepare_folder(
            FolderRequest(home=tmp_path / "new" / "data", source=source, size=16),
            PrepareListener(progress=lambda *done: told.append(done)),
        )
    reasons = [line.split(": ")[0] for line in caught.value.where.splitlines()]
    assert reasons == ["a_text.png", "deep/empty_1.webp", "z_cut.png", "zz_link.png"]
    assert everything_under(tmp_path) == before
    assert told[-1] == (34, 34)


def test_a_long_list_of_bad_images_is_cut(tmp_path):
    for number in range(25):
        (tmp_path / f"bad_{number:02d}.png").touch()
    with pytest.raises(CorruptError, match="25 of 25 images") as caught:
        prepare_folder(FolderRequest(home=tmp_path / "data", source=tmp_path, size=16))
    lines = caught.value.where.splitlines()
    assert lines[0] == "bad_00.png: an empty file"
    assert (len(lines), lines[-1]) == (11, "and 15 more")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_cleanly_and_the_same_request_goes_on(tmp_path, number):
    source = photos(tmp_path / "photos", count=60)
    request = FolderRequest(home=tmp_path / "data", source=source, size=64)
    seen, remarks = [], []
    with pytest.raises(InterruptedRunError, match=r"stopped after \d+ of 60 images") as caught:
        prepare_folder(request, interrupting(3, number))
    assert caught.value.exit_code == 128 + number
    assert caught.value.remedy == "the same command goes on from there"
    assert prepared_names(tmp_path / "data") == ()
    stopped_after = int(caught.value.what.split()[2])
    listener = PrepareListener(progress=lambda done, _total: seen.append(done), notice=remarks.append)
    (split,) = prepare_folder(request, listener).splits
    assert f"going on after {stopped_after} of 60" in remarks[0]
    assert [done for done in seen if done > stopped_after] == list(range(stopped_after + 1, 61))
    (whole,) = prepare_folder(replace(request, name="photos_64", home=tmp_path / "other")).splits
    assert content_of(split.path) == content_of(whole.path)
    assert everything_under(tmp_path / "data") == everything_under(tmp_path / "other")


def content_of(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("output_format", ["packed", "shards"])
def test_what_is_read_again_is_counted_by_itself(tmp_path, output_format):
    source = photos(tmp_path / "photos", count=60)
    request = FolderRequest(home=tmp_path / "data", source=source, size=16, format=output_format)
    with pytest.raises(InterruptedRunError):
        prepare_folder(request, interrupting(40))
    work, told = "", defaultdict(list)

    def begin(verb, _unit):
        nonlocal work
        work = verb

    listener = PrepareListener(progress=lambda *done: told[work].append(done), begin=begin)
    prepare_folder(request, listener)
    (kept,) = {total for _, total in told["reading again"]}
    assert kept >= 40
    assert sorted(told["reading again"]) == told["reading again"]
    assert told["preparing"] == [(done, 60) for done in range(kept + 1, 61)]
    assert not told[""]


CHANGES = {
    "another size": lambda _source: {"size": 16},
    "another recipe": lambda _source: {"recipe": "improved"},
    "another image": lambda source: (source / "zz_9.png").write_bytes((source / "x_0.PNG").read_bytes()),
    "a touched image": lambda source: os.utime(source / "x_0.PNG", (0, 0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_request_or_source_starts_anew_and_says_so(tmp_path, change):
    source = photos(tmp_path / "photos", count=30)
    request = FolderRequest(home=tmp_path / "data", source=source, size=64, name="mine")
    with pytest.raises(InterruptedRunError):
        prepare_folder(request, interrupting(5))
    changes = CHANGES[change](source)
    if isinstance(changes, dict):
        request = replace(request, **changes)
    remarks = []
    (split,) = prepare_folder(request, PrepareListener(notice=remarks.append)).splits
    assert [remark.partition(":")[0] for remark in remarks] == ["starting anew"]
    (whole,) = prepare_folder(replace(request, home=tmp_path / "other")).splits
    assert content_of(split.path) == content_of(whole.path)


def test_of_two_splits_the_finished_one_is_kept(tmp_path):
    with pytest.raises(InterruptedRunError, match=r"of 1797 images"):
        prepare_digits(DigitsRequest(home=tmp_path / "data"), interrupting(1600, signal.SIGINT))
    remarks = []
    result = prepare_digits(DigitsRequest(home=tmp_path / "data"), PrepareListener(notice=remarks.append))
    assert [split.already_there for split in result.splits] == [True, False]
    assert remarks[0].startswith("going on after 1600 of 1797")
    prepare_digits(DigitsRequest(home=tmp_path / "other"))
    for split in ("train", "test"):
        there, whole = (content_of(tmp_path / home / "digits" / split) for home in ("data", "other"))
        assert there == whole


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"size": 0}, UsageError, "--size is 0"),
        ({"size": 5000}, UsageError, "--size is 5000"),
        ({"channels": 2}, UsageError, "--channels is 2"),
        ({"name": "a/b"}, UsageError, "cannot name a dataset"),
        ({"name": ".hidden"}, UsageError, "cannot name a dataset"),
        ({"labels": "directories"}, UsageError, "lie in no directory"),
    ],
)
def test_wrong_requests(tmp_path, changes, error, message):
    request = FolderRequest(home=tmp_path / "data", source=photos(tmp_path / "photos"), size=16)
    with pytest.raises(error, match=message):
        prepare_folder(replace(request, **changes))
    assert not (tmp_path / "data").exists()


def test_missing_folders_and_homes_that_cannot_be(tmp_path):
    request = FolderRequest(home=tmp_path / "data", source=tmp_path / "gone", size=16)
    with pytest.raises(MissingError, match="gone"):
        prepare_folder(request)
    (tmp_path / "file").touch()
    source = photos(tmp_path / "photos")
    with pytest.raises(StorageError, match="file"):
        prepare_folder(replace(request, source=source, home=tmp_path / "file"))
    assert {path.name for path in tmp_path.iterdir()} == {"file", "photos"}


def test_default_names(tmp_path):
    assert default_name(tmp_path / "cats", 64) == "cats_64"
    assert default_name(tmp_path / "a b/ç d_", 8) == "ç_d_8"
    assert default_name(tmp_path / "...", 8) == "images_8"


def test_dataset_json_has_every_field_of_the_design(tmp_path):
    prepare_digits(DigitsRequest(home=tmp_path))
    found = json.loads((tmp_path / "digits" / "train" / "dataset.json").read_text())
    named = "schema name variant split count height width channels class_names label_source resize_recipe "
    named += "source_url source_bytes source_sha256 content_hash diffcli_version"
    assert set(named.split()) <= set(found)
    assert len(found["content_hash"]) == len(found["source_sha256"]) == 64


# ---- the reference's own layout ----


def as_folder(tmp_path, source, **changes):
    request = {"home": tmp_path / "data", "source": source, "size": 24, "name": "mine", "layout": "folder"}
    return prepare_folder(FolderRequest(**(request | changes)))


def test_a_folder_holds_the_same_pixels_under_the_names_of_the_reference(tmp_path):
    source = photos(tmp_path / "photos")
    (split,) = as_folder(tmp_path, source).splits
    assert split.path == tmp_path / "data" / "mine_train"
    names = sorted(path.name for path in split.path.iterdir())
    assert names == ["x_00000.png", "x_00001.png", "y_00002.png", "y_00003.png", "z_00004.png", "z_00005.png"]
    packed = PreparedDataset(as_folder(tmp_path, source, layout="dataset").splits[0].path)
    pixels = [np.asarray(Image.open(split.path / name)) for name in names]
    assert np.array_equal(np.stack(pixels), packed.read(np.arange(6)))
    assert split.size_bytes == sum(path.stat().st_size for path in split.path.iterdir())
    # it is a plain folder, with the classes that it came with
    again = as_folder(tmp_path, split.path, name="again", layout="dataset").splits[0]
    assert PreparedDataset(again.path).class_names == packed.class_names
    assert PreparedDataset(again.path).content_hash == packed.content_hash
    with pytest.raises(UsageError, match="already there"):
        as_folder(tmp_path, source)
    assert as_folder(tmp_path, source, force=True).splits[0].count == 6


def test_names_in_a_folder_without_classes_are_numbers(tmp_path):
    source = photos(tmp_path / "photos")
    for path in source.iterdir():
        path.rename(source / path.name.replace("_", ""))
    (split,) = as_folder(tmp_path, source).splits
    assert sorted(path.name for path in split.path.iterdir())[:2] == ["00000.png", "00001.png"]


@pytest.mark.parametrize("left", ["as it was", "with half a file", "with a file missing"])
def test_a_folder_is_gone_on_with(tmp_path, left):
    source = photos(tmp_path / "photos", count=40)
    (whole,) = as_folder(tmp_path, source, home=tmp_path / "whole").splits

    def stop(done, _total):
        if done == 20:
            raise InterruptedRunError("stopped", signal_number=15)

    request = {"home": tmp_path / "data", "source": source, "size": 24, "name": "mine", "layout": "folder"}
    with pytest.raises(InterruptedRunError):
        prepare_folder(FolderRequest(**request), PrepareListener(progress=stop))
    staging = tmp_path / "data" / ".mine_train.staging"
    files = sorted(staging.iterdir(), key=lambda path: path.name.partition("_")[2])
    assert len(files) == 20
    if left == "with half a file":
        (staging / "x_00020.png").write_bytes(files[19].read_bytes()[:50])
        (staging / "y_00020.png").write_bytes(files[19].read_bytes()[:50])
    if left == "with a file missing":
        files[3].unlink()
    told = []
    (split,) = prepare_folder(
        FolderRequest(**request), PrepareListener(progress=lambda done, _total: told.append(done))
    ).splits
    assert told[0] == (1 if left == "with a file missing" else 21)
    assert content_of(split.path) == content_of(whole.path)


def test_classes_that_names_of_files_cannot_tell_are_refused(tmp_path):
    photos(tmp_path / "photos" / "a_b")
    with pytest.raises(UsageError, match="'a_b' cannot be told by names of files"):
        as_folder(tmp_path, tmp_path / "photos", labels="directories")
    with pytest.raises(UsageError, match="--format packed does not go with"):
        as_folder(tmp_path, tmp_path / "photos", format="packed")
