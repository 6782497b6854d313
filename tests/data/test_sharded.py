"""Datasets in tar shards: round trips, other readers, going on, and what happens when they are damaged."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from diffcli.commands.prepare import FolderRequest, prepare_folder
from diffcli.config.sections import DataConfig
from diffcli.data import shard_files, sharded
from diffcli.data.dataset import open_dataset, open_prepared
from diffcli.data.prepared import PreparedDataset
from diffcli.data.sharded import ShardedDataset
from diffcli.errors import CorruptError, InterruptedRunError, UsageError
from diffcli.records.datasets import PrepareListener

COUNT, SIZE = 23, 24


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Five images in each shard."""
    monkeypatch.setattr(shard_files, "_SHARD_PIXELS", 5 * SIZE**2)


def photograph(number, size=(40, 30), mode="RGB"):
    smooth = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(smooth).resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(COUNT):
        photograph(number).save(root / f"{'xyz'[number % 3]}_{number:02d}.png")
    return root


def prepared(photos, **choices):
    request = {"home": photos.parent / "data", "source": photos, "size": SIZE, "format": "shards"}
    return prepare_folder(FolderRequest(**(request | choices))).splits[0].path


def content_of(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_verifying_holds_few_images_at_once_when_they_are_large(photos, monkeypatch):
    dataset = ShardedDataset(prepared(photos))
    assert list(dataset.verified()) == [5, 10, 15, 20, 23]
    monkeypatch.setattr(sharded, "_DECODED_AT_ONCE_BYTES", 2 * SIZE**2 * 3 + 1)
    assert list(dataset.verified()) == [2, 4, 5, 7, 9, 10, 12, 14, 15, 17, 19, 20, 22, 23]
    # a single image may be larger than that
    monkeypatch.setattr(sharded, "_DECODED_AT_ONCE_BYTES", 1)
    assert list(dataset.verified()) == list(range(1, COUNT + 1))


@pytest.mark.parametrize("encoding", ["webp", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_shards_hold_the_pixels_of_the_packed_format(photos, encoding, channels):
    packed = open_prepared(prepared(photos, format="packed", name="packed", channels=channels))
    shards = open_prepared(prepared(photos, encoding=encoding, name="shards", channels=channels))
    assert isinstance(packed, PreparedDataset)
    assert isinstance(shards, ShardedDataset)
    order = np.random.default_rng(0).permutation(COUNT)
    assert np.array_equal(shards.read(order), packed.read(order))
    assert np.array_equal(shards.labels(order), packed.labels(order))
    assert shards.read(order[:0]).shape == (0, SIZE, SIZE, channels)
    assert (shards.class_names, shards.count, shards.weak_hash) == (packed.class_names, COUNT, False)
    shards.require_intact()
    assert sorted(content_of(shards.location)) == [
        "dataset.json",
        "index.npy",
        "labels.npy",
        *(f"shard-{number:06d}.tar" for number in range(5)),
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_shards_are_close_and_the_quality_decides_how_close(photos, channels):
    packed = open_prepared(prepared(photos, format="packed", name="packed", channels=channels))
    pixels = packed.read(np.arange(COUNT)).astype(float)
    errors, sizes = {}, {}
    for quality in (50, 95):
        path = prepared(photos, name=f"jpeg{quality}", quality=quality, channels=channels)
        dataset = open_prepared(path)
        assert (dataset.record.encoding, dataset.record.quality) == ("jpeg", quality)
        errors[quality] = np.abs(dataset.read(np.arange(COUNT)) - pixels).mean()
        sizes[quality] = np.load(path / "index.npy")[:, 2].sum()
    assert errors[95] < min(2.0, errors[50])
    assert sizes[95] > sizes[50]


def test_a_jpeg_of_the_right_size_is_stored_byte_for_byte(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    photograph(0, (SIZE, SIZE)).save(root / "a_0.jpg", quality=30)
    photograph(1, (SIZE, SIZE), "L").save(root / "a_1.jpg", quality=30)
    photograph(2, (SIZE + 1, SIZE)).save(root / "a_2.jpg", quality=30)
    dataset = open_prepared(prepared(root))
    with tarfile.open(dataset.location / "shard-000000.tar") as shard:
        stored = [shard.extractfile(f"{number:09d}.jpg").read() for number in range(3)]
    original = [(root / f"a_{number}.jpg").read_bytes() for number in range(3)]
    # what is gray is stored as colour, and what is larger is cut
    assert [one == other for one, other in zip(stored, original, strict=True)] == [True, False, False]
    assert np.array_equal(dataset.read(np.array([0]))[0], np.asarray(Image.open(root / "a_0.jpg")))


def test_the_format_follows_the_size_unless_it_is_given(tmp_path, photos):
    for size, choices, kind in (
        (64, {}, PreparedDataset),
        (65, {}, ShardedDataset),
        (64, {"format": "shards"}, ShardedDataset),
        (65, {"format": "packed"}, PreparedDataset),
    ):
        request = FolderRequest(home=tmp_path / "data", source=photos, size=size, force=True, **choices)
        assert type(open_prepared(prepare_folder(request).splits[0].path)) is kind
    with pytest.raises(UsageError, match="--quality is 101"):
        prepare_folder(replace(request, quality=101))


def test_webdataset_reads_the_shards(photos):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is in the extra `test`")
    dataset = open_prepared(prepared(photos, encoding="png"))
    shards = sorted(str(path) for path in dataset.location.glob("*.tar"))
    read = webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8").to_tuple("__key__", "png", "cls")
    rows = list(read)
    assert [key for key, _, _ in rows] == [f"{number:09d}" for number in range(COUNT)]
    everything = np.arange(COUNT)
    assert np.array_equal(np.stack([pixels for _, pixels, _ in rows]), dataset.read(everything))
    assert [label for _, _, label in rows] == dataset.labels(everything).tolist()


def test_tar_itself_reads_the_shards_and_they_tell_no_time(photos):
    directory = prepared(photos)
    with tarfile.open(directory / "shard-000004.tar") as shard:
        members = shard.getmembers()
    assert [member.name for member in members] == [
        "000000020.jpg",
        "000000020.cls",
        "000000021.jpg",
        "000000021.cls",
        "000000022.jpg",
        "000000022.cls",
    ]
    assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in members} == {
        (0, 0, 0, "", 0o644)
    }


def test_images_without_classes_have_no_class_members(photos):
    for path in photos.iterdir():
        path.rename(photos / path.name.replace("_", ""))
    dataset = open_prepared(prepared(photos))
    assert dataset.class_names == ()
    with tarfile.open(dataset.location / "shard-000000.tar") as shard:
        assert [name.rpartition(".")[2] for name in shard.getnames()] == ["jpg"] * 5
    dataset.require_intact()


def test_many_threads_read_what_one_reads(photos):
    dataset = open_prepared(prepared(photos, encoding="webp"))
    whole = dataset.read(np.arange(COUNT))
    wrong = []

    def read_all(seed):
        order = np.random.default_rng(seed).permutation(COUNT)
        wrong.append(not np.array_equal(dataset.read(order), whole[order]))

    threads = [threading.Thread(target=read_all, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [False] * 8


def test_training_finds_shards_by_name_and_cuts_them(photos):
    prepared(photos, name="mine")
    config = DataConfig(name="mine", resolution=16)
    dataset = open_dataset(config, home=photos.parent / "data", directory=None)
    assert isinstance(dataset, ShardedDataset)
    assert dataset.read(np.arange(3)).shape == (3, SIZE, SIZE, 3)


def test_the_content_hash_sees_images_labels_and_encoding(photos):
    hashes = [open_prepared(prepared(photos, name="one")).content_hash]
    assert open_prepared(prepared(photos, name="same")).content_hash == hashes[0]
    hashes.append(open_prepared(prepared(photos, name="two", quality=94)).content_hash)
    (photos / "x_00.png").rename(photos / "y_00.png")
    hashes.append(open_prepared(prepared(photos, name="three")).content_hash)
    photograph(99).save(photos / "z_02.png")
    hashes.append(open_prepared(prepared(photos, name="four")).content_hash)
    assert len(set(hashes)) == 4


# ---- damage ----


def rewrite_record(directory, **changes):
    path = directory / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite_index(directory, row, column, value):
    index = np.load(directory / "index.npy")
    index[row, column] = value
    np.save(directory / "index.npy", index)


SEEN_ON_OPENING = {
    "shard missing": lambda path: (path / "shard-000002.tar").unlink(),
    "shard a directory": lambda path: (
        (path / "shard-000002.tar").unlink(),
        (path / "shard-000002.tar").mkdir(),
    ),
    "shard cut": lambda path: os.truncate(path / "shard-000004.tar", 1500),
    "index missing": lambda path: (path / "index.npy").unlink(),
    "index short": lambda path: np.save(path / "index.npy", np.zeros((COUNT - 1, 3), np.int64)),
    "index of floats": lambda path: np.save(path / "index.npy", np.zeros((COUNT, 3))),
    "another shard": lambda path: rewrite_index(path, 7, 0, 0),
    "negative offset": lambda path: rewrite_index(path, 7, 1, -1),
    "offset behind": lambda path: rewrite_index(path, 7, 1, 2**40),
    "no length": lambda path: rewrite_index(path, 7, 2, 0),
    "huge length": lambda path: rewrite_index(path, 7, 2, 2**63 - 1),
    "labels missing": lambda path: (path / "labels.npy").unlink(),
    "fewer shards": lambda path: rewrite_record(path, shard_sha256=["0" * 64] * 4),
    "no shards": lambda path: rewrite_record(path, shard_sha256=[]),
    "unknown encoding": lambda path: rewrite_record(path, encoding="tiff"),
    "unknown format": lambda path: rewrite_record(path, format="lmdb"),
    "other layout": lambda path: rewrite_record(path, images_per_shard=6),
    "no layout": lambda path: rewrite_record(path, images_per_shard=0),
}


@pytest.mark.parametrize("damage", SEEN_ON_OPENING)
def test_damage_is_refused_on_opening(photos, damage):
    directory = prepared(photos)
    SEEN_ON_OPENING[damage](directory)
    with pytest.raises(CorruptError) as caught:
        open_prepared(directory)
    assert str(directory) in caught.value.what
    named = ("shard", "index.npy", "labels.npy", "dataset.json")
    assert any(name in caught.value.where for name in named)
    assert "--force" in caught.value.remedy


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


SEEN_WHEN_READ = {
    "a bit of an image": lambda path: flip(path / "shard-000001.tar", 700),
    "a bit of a header": lambda path: flip(path / "shard-000001.tar", 3),
    "a bit of padding": lambda path: flip(path / "shard-000001.tar", -1),
    "bytes behind the end": lambda path: (path / "shard-000001.tar").open("ab").write(b"\0" * 512),
    "a cut end": lambda path: os.truncate(
        path / "shard-000001.tar", (path / "shard-000001.tar").stat().st_size - 1
    ),
    "an index off by one": lambda path: rewrite_index(path, 7, 2, 100),
    "a label": lambda path: flip(path / "labels.npy", -8),
    "a hash": lambda path: rewrite_record(path, shard_sha256=["0" * 64] * 5),
    "class names": lambda path: rewrite_record(path, class_names=["a", "b", "c"]),
}


@pytest.mark.parametrize("damage", SEEN_WHEN_READ)
def test_damage_is_found_when_every_byte_is_read(photos, damage):
    directory = prepared(photos)
    SEEN_WHEN_READ[damage](directory)
    with pytest.raises(CorruptError) as caught:
        open_prepared(directory).require_intact()
    assert str(directory) in caught.value.what


# ---- going on ----


def stopped_at(photos, moment, **choices):
    """A preparation that ends in an error which keeps what is done, once so many images are done."""

    def stop(done, _total):
        if done == moment:
            raise InterruptedRunError("stopped", signal_number=15)

    request = FolderRequest(
        home=photos.parent / "data", source=photos, size=SIZE, format="shards", name="made", **choices
    )
    with pytest.raises(InterruptedRunError):
        prepare_folder(request, PrepareListener(progress=stop))
    return photos.parent / "data" / "made" / ".train.staging"


# within a shard of five, at its end, behind its first image, at the end of all
@pytest.mark.parametrize("moment", [3, 5, 6, 22, 23])
def test_what_was_kept_is_gone_on_from_to_the_same_bytes(photos, moment):
    whole = content_of(prepared(photos, name="made", home=photos.parent / "whole"))
    staging = stopped_at(photos, moment)
    # a kill leaves more than is known to be durable
    with sorted(staging.glob("*.tar"))[-1].open("ab") as shard:
        shard.write(b"half an image")
    seen = []
    request = FolderRequest(
        home=photos.parent / "data", source=photos, size=SIZE, format="shards", name="made"
    )
    listener = PrepareListener(progress=lambda done, _total: seen.append(done))
    (split,) = prepare_folder(request, listener).splits
    assert [done for done in seen if done > moment] == list(range(moment + 1, COUNT + 1))
    assert content_of(split.path) == whole
    open_prepared(split.path).require_intact()


LEFT = {
    "a shard is missing": lambda path: (path / "shard-000001.tar").unlink(),
    "a shard is cut": lambda path: os.truncate(path / "shard-000002.tar", 600),
    "a header is damaged": lambda path: flip(path / "shard-000000.tar", 0),
    "a label is damaged": lambda path: flip(path / "shard-000000.tar", -1024 - 512),
    "the journal is torn": lambda path: path.with_name(".train.staging.json").write_text("["),
}


@pytest.mark.parametrize("left", LEFT)
def test_what_cannot_be_gone_on_from_is_written_anew(photos, left):
    whole = content_of(prepared(photos, name="made", home=photos.parent / "whole"))
    LEFT[left](stopped_at(photos, 13))
    assert content_of(prepared(photos, name="made")) == whole


@pytest.mark.parametrize("change", [{"quality": 94}, {"encoding": "webp"}, {"format": "packed"}])
def test_other_settings_start_anew(photos, change):
    stopped_at(photos, 13)
    there = content_of(prepared(photos, name="made", **change))
    assert there == content_of(prepared(photos, name="made", home=photos.parent / "whole", **change))


def test_bad_images_are_named_by_their_member(photos):
    directory = prepared(photos)
    dataset = open_prepared(directory)
    start, length = np.load(directory / "index.npy")[7, 1:]
    other = io.BytesIO()
    photograph(0, (8, 8)).save(other, format="JPEG")
    for content, reason in (
        (bytes(length), "not a jpeg, png, gif or webp image"),
        (other.getvalue().ljust(length, b"\0")[:length], "8x8 pixels in place of 24x24"),
    ):
        with (directory / "shard-000001.tar").open("r+b") as shard:
            shard.seek(start)
            shard.write(content)
        with pytest.raises(CorruptError, match="1 of 3 images") as caught:
            dataset.read(np.array([0, 7, 20]))
        assert caught.value.where == f"shard-000001.tar/000000007.jpg: {reason}"
