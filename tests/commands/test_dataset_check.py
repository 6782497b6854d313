"""`prepare ls`, `verify` and `show`: what they tell of whole and of damaged datasets."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffcli.commands.dataset_check import show, verify
from diffcli.commands.dataset_listing import list_datasets, splits_named
from diffcli.commands.prepare import DigitsRequest, FolderRequest, prepare_digits, prepare_folder
from diffcli.data.record_file import read_labels, read_record
from diffcli.data.shard_writer import hash_of_shards
from diffcli.errors import CorruptError, InterruptedRunError, MissingError, UsageError
from diffcli.records.datasets import PrepareListener


@pytest.fixture
def home(tmp_path) -> Path:
    """Digits in the packed format, and photographs in shards."""
    home = tmp_path / "data"
    prepare_digits(DigitsRequest(home=home))
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(7):
        Image.new("RGB", (40, 30), (36 * number, 0, 0)).save(photos / f"{'ab'[number % 2]}_{number}.png")
    prepare_folder(FolderRequest(home=home, source=photos, size=24, name="photos", format="shards"))
    return home


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_the_listing_has_every_split_and_says_what_cannot_be_read(home):
    (home / "half" / ".train.staging").mkdir(parents=True)
    (home / "broken" / "train").mkdir(parents=True)
    (home / "broken" / "train" / "dataset.json").write_text("{")
    rows = {(row.name, row.split): row for row in list_datasets(home).datasets}
    assert list(rows) == [("broken", "train"), ("digits", "test"), ("digits", "train"), ("photos", "train")]
    photos = rows["photos", "train"]
    assert (photos.count, photos.height, photos.channels, photos.classes) == (7, 24, 3, 2)
    assert (photos.format, photos.encoding) == ("shards", "jpeg")
    assert photos.size_bytes == sum(path.stat().st_size for path in photos.path.iterdir())
    assert photos.content_hash == read_record(photos.path).content_hash
    assert rows["digits", "test"].encoding == ""
    assert rows["broken", "train"].problem == "dataset.json cannot be read"
    assert list_datasets(home / "nowhere").datasets == ()


def test_datasets_are_named_by_directory_or_by_name(home, monkeypatch):
    digits = (home / "digits" / "test", home / "digits" / "train")
    assert splits_named("digits", home) == splits_named(str(home / "digits"), home) == digits
    assert splits_named("digits/train", home) == (digits[1],)
    assert splits_named(str(digits[0]), home / "elsewhere") == (digits[0],)
    # a directory that is no dataset does not hide one of that name
    monkeypatch.chdir(home.parent)
    assert splits_named("photos", home) == (home / "photos" / "train",)
    with pytest.raises(MissingError, match="'digit'") as caught:
        splits_named("digit", home)
    assert caught.value.remedy == "did you mean digits?"
    with pytest.raises(MissingError, match="a directory without a prepared dataset"):
        splits_named(str(home), home)


def test_verifying_tells_every_split_and_how_far_it_is(home):
    told = []
    result = verify("digits", home, PrepareListener(progress=lambda *done: told.append(done)))
    assert [(split.split, split.count, split.decoded) for split in result.splits] == [
        ("test", 297, False),
        ("train", 1500, False),
    ]
    assert told[-1] == (1797, 1797)
    (photos,) = verify("photos", home).splits
    assert photos.decoded
    assert photos.content_hash == read_record(photos.path).content_hash


DAMAGES = {
    "a pixel": ("digits", "test", lambda path: flip(path / "images.npy", 500)),
    "a label": ("digits", "train", lambda path: flip(path / "labels.npy", -8)),
    "a byte of a shard": ("photos", "train", lambda path: flip(path / "shard-000000.tar", 800)),
    "the index": ("photos", "train", lambda path: flip(path / "index.npy", -8)),
    "a missing shard": ("photos", "train", lambda path: (path / "shard-000000.tar").unlink()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_verifying_names_the_damaged_split(damage, home):
    name, split, act = DAMAGES[damage]
    act(home / name / split)
    with pytest.raises(CorruptError) as caught:
        verify(name, home)
    assert str(home / name / split) in caught.value.what
    assert caught.value.where
    assert "--force" in caught.value.remedy


def test_verifying_goes_on_behind_a_damaged_split(home):
    for split in ("train", "test"):
        flip(home / "digits" / split / "images.npy", 500)
    with pytest.raises(CorruptError, match="2 splits are damaged") as caught:
        verify("digits", home)
    assert len(caught.value.where.splitlines()) == 2


def test_verifying_decodes_what_agrees_with_its_hash(home):
    directory = home / "photos" / "train"
    record = dataclasses.replace(read_record(directory), height=25, width=25)
    labels = read_labels(directory, record)
    forged = dataclasses.replace(record, content_hash=hash_of_shards(record, record.shard_sha256, labels))
    (directory / "dataset.json").write_text(json.dumps(dataclasses.asdict(forged)))
    with pytest.raises(CorruptError, match="7 of 7 images") as caught:
        verify("photos", home)
    assert caught.value.where.startswith("shard-000000.tar/000000000.jpg: 24x24 pixels in place of 25x25")


def test_verifying_stops_when_asked(home):
    asked = PrepareListener(progress=lambda *_done: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(InterruptedRunError, match=r"stopped after \d+ of 1797") as caught:
        verify("digits", home, asked)
    assert caught.value.exit_code == 143


def test_showing_draws_images_from_the_first_to_the_last(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    details = show("photos", home, None, force=False)
    assert details.grid == Path("photos_train.png")
    assert [(found.name, found.count) for found in details.class_counts] == [("a", 4), ("b", 3)]
    assert (details.quality, details.resize_recipe, details.label_source) == (95, "guided", "filename")
    assert details.grid_images == 7
    # three columns and rows of 24 pixels and a gap of 2; listed a_0 a_2 a_4 a_6 b_1 b_3 b_5
    with Image.open(details.grid) as picture:
        pixels = np.asarray(picture).astype(int)
    assert pixels.shape == (3 * 26 - 2, 3 * 26 - 2, 3)
    centres = pixels[12::26, 12::26, 0].flatten()[:7]
    assert np.abs(centres - [0, 72, 144, 216, 36, 108, 180]).max() <= 3
    with pytest.raises(UsageError, match="already there"):
        show("photos", home, None, force=False)
    assert show("photos", home, None, force=True).grid_images == 7
    digits = show("digits", home, tmp_path / "own.png", force=False)
    assert (digits.row.split, digits.grid_images) == ("train", 64)
    with Image.open(tmp_path / "own.png") as picture:
        assert picture.size == (8 * 34 - 2, 8 * 34 - 2)
