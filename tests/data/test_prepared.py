"""The packed format: round trips, wholeness, and what happens to a directory that is not what it says."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pickle
import resource
from itertools import islice

import numpy as np
import pytest

from diffcli.data.packed_writer import packed_writer
from diffcli.data.prepared import PreparedDataset, prepared_names, prepared_splits
from diffcli.data.record_file import write_record
from diffcli.data.squares import SquareFormat
from diffcli.data.staging import staged_directory
from diffcli.errors import CorruptError, InterruptedRunError, LockedError, StorageError, UsageError
from diffcli.records.datasets import DATASET_SCHEMA, DatasetRecord

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(11, dtype=np.int64) % 3
SQUARE = SquareFormat(resolution=6, recipe="", channels=3)


def facts(**changes):
    record = {
        "schema": DATASET_SCHEMA,
        "name": "tiny",
        "variant": "",
        "split": "train",
        "split_rule": "",
        "count": 11,
        "height": 6,
        "width": 5,
        "channels": 3,
        "class_names": ("a", "b", "größer"),
        "label_source": "filename",
        "resize_recipe": "guided",
        "source_url": "file:///tiny",
        "source_bytes": 1,
        "source_sha256": "",
        "content_hash": "",
        "diffcli_version": "0",
        "format": "packed",
        "encoding": "",
        "quality": 0,
        "images_per_shard": 0,
        "shard_sha256": (),
    }
    return DatasetRecord(**(record | changes))


def write_packed(target, record, images, labels, *, replace, request="this"):
    """Write images of any shape, as the writer takes them once they are decoded."""
    with staged_directory(target, request=request, replace=replace) as staging:
        with packed_writer(staging, record, SQUARE, lambda: None) as writer:
            for image in islice(images, writer.done, None):
                writer.add(image)
            written = writer.finish(labels)
        record = dataclasses.replace(record, content_hash=written.content_hash)
        write_record(staging.directory, record, labels)
    return record


def write(target, *, images=IMAGES, labels=LABELS, replace=False, **changes):
    return write_packed(target, facts(count=len(images), **changes), images, labels, replace=replace)


def everything_under(path):
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


def test_round_trip(tmp_path):
    target = tmp_path / "tiny" / "train"
    record = write(target)
    dataset = PreparedDataset(target)
    dataset.require_intact()
    assert dataset.record == record
    assert (dataset.count, dataset.height, dataset.width, dataset.channels) == IMAGES.shape
    assert dataset.class_names == ("a", "b", "größer")
    chosen = np.array([10, 0, 3, 3])
    assert np.array_equal(dataset.read(chosen), IMAGES[chosen])
    assert np.array_equal(dataset.labels(chosen), LABELS[chosen])
    assert dataset.labels(chosen).dtype == np.int64
    assert everything_under(tmp_path / "tiny" / "train") == ["dataset.json", "images.npy", "labels.npy"]
    assert everything_under(tmp_path)[:2] == ["tiny", "tiny/train"]
    # other programs read it with plain numpy
    assert np.array_equal(np.load(target / "images.npy"), IMAGES)


def test_round_trip_without_labels(tmp_path):
    write(tmp_path / "train", labels=None, class_names=())
    dataset = PreparedDataset(tmp_path / "train")
    dataset.require_intact()
    assert dataset.class_names == ()
    assert everything_under(tmp_path / "train") == ["dataset.json", "images.npy"]


def test_the_content_hash_sees_pixels_labels_and_classes_but_not_names(tmp_path):
    def hash_of(number, **changes):
        return write(tmp_path / str(number), **changes).content_hash

    other_images = IMAGES.copy()
    other_images[7, 2, 2, 1] ^= 1
    base = hash_of(0)
    assert hash_of(1, name="other", source_url="") == base
    others = [
        hash_of(2, images=other_images),
        hash_of(3, labels=LABELS[::-1]),
        hash_of(4, class_names=("a", "b", "c")),
    ]
    assert len({base, *others}) == 4


def test_listings_ignore_what_is_unfinished(tmp_path):
    write(tmp_path / "tiny" / "train")
    write(tmp_path / "tiny" / "test")
    write(tmp_path / "tiny" / ".val.staging2")
    (tmp_path / "half").mkdir()
    assert prepared_names(tmp_path) == ("tiny",)
    assert prepared_splits(tmp_path, "tiny") == ("test", "train")
    assert prepared_names(tmp_path / "nowhere") == ()


def test_nothing_is_overwritten_unless_asked(tmp_path):
    write(tmp_path / "train")
    before = everything_under(tmp_path)
    with pytest.raises(UsageError, match="already there"):
        write(tmp_path / "train", images=IMAGES[:5], labels=LABELS[:5])
    assert everything_under(tmp_path) == before
    assert PreparedDataset(tmp_path / "train").count == 11
    write(tmp_path / "train", images=IMAGES[:5], labels=LABELS[:5], replace=True)
    assert everything_under(tmp_path) == before
    assert PreparedDataset(tmp_path / "train").count == 5


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("error", [CorruptError("bad"), KeyboardInterrupt()])
def test_an_error_on_the_way_leaves_no_trace(tmp_path, replace, error):
    def broken():
        yield from IMAGES[:4]
        raise error

    home = tmp_path / "home"
    if replace:
        write(home / "tiny" / "train")
    before = everything_under(tmp_path)
    with pytest.raises(type(error)):
        write_packed(home / "tiny" / "train", facts(), broken(), LABELS, replace=replace)
    assert everything_under(tmp_path) == before
    if replace:
        PreparedDataset(home / "tiny" / "train").require_intact()


def test_a_full_disk_leaves_no_trace(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(StorageError, match="cannot write"):
            write(tmp_path / "tiny" / "train")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert everything_under(tmp_path) == []


def test_a_home_that_cannot_be_made(tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(StorageError, match="data"):
        write(tmp_path / "data" / "tiny" / "train")


def test_leftovers_of_a_killed_process_are_cleared_by_the_next(tmp_path):
    staging = tmp_path / ".train.staging"
    staging.mkdir()
    (staging / "images.npy").write_bytes(b"half")
    (staging / "stray").touch()
    write(tmp_path / "train")
    assert everything_under(tmp_path) == sorted(
        ["train", "train/dataset.json", "train/images.npy", "train/labels.npy"]
    )


def test_a_replacement_that_broke_off_is_put_back(tmp_path):
    write(tmp_path / "train")
    (tmp_path / "train").rename(tmp_path / ".train.replaced")
    with pytest.raises(UsageError, match="already there"):
        write(tmp_path / "train", images=IMAGES[:5], labels=LABELS[:5])
    assert PreparedDataset(tmp_path / "train").count == 11


def test_two_processes_do_not_prepare_the_same_dataset(tmp_path):
    staging = tmp_path / ".train.staging"
    staging.mkdir()
    (staging / "images.npy").write_bytes(b"half")
    descriptor = os.open(staging, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="another process"):
            write(tmp_path / "train")
        assert (staging / "images.npy").read_bytes() == b"half"
    finally:
        os.close(descriptor)
    write(tmp_path / "train")


def test_images_are_written_one_at_a_time(tmp_path):
    written_before = []

    def images():
        for number in range(20):
            size = (tmp_path / ".train.staging" / "images.npy").stat().st_size
            written_before.append(size)
            yield np.full((300, 300, 3), number, np.uint8)

    large = facts(count=20, height=300, width=300)
    write_packed(tmp_path / "train", large, images(), LABELS.repeat(2)[:20], replace=False)
    # 270 kB each: all but what the file object buffers is on disk before the next one is asked for
    assert written_before[-1] >= 18 * 270_000


# ---- going on ----


def stopped_after(target, count, **changes):
    """A preparation that is asked to stop after some images."""

    def images():
        yield from IMAGES[:count]
        raise InterruptedRunError("stopped", signal_number=15)

    with pytest.raises(InterruptedRunError):
        write_stopping(target, facts(**changes), images(), LABELS)


def write_stopping(target, record, images, labels, request="this"):
    with (
        staged_directory(target, request=request, replace=False) as staging,
        packed_writer(staging, record, SQUARE, lambda: None) as writer,
    ):
        try:
            for image in images:
                writer.add(image)
        except InterruptedRunError:
            writer.keep()
            raise


def content_of(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("kept", [1, 5, 11])
def test_what_was_kept_is_gone_on_from_to_the_same_bytes(tmp_path, kept):
    write(tmp_path / "whole")
    stopped_after(tmp_path / "train", kept)
    # a kill leaves more than is known to be durable
    with (tmp_path / ".train.staging" / "images.npy").open("ab") as file:
        file.write(b"half an image")
    assert prepared_splits(tmp_path.parent, tmp_path.name) == ("whole",)
    write(tmp_path / "train")
    assert content_of(tmp_path / "train") == content_of(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train", "whole"]
    PreparedDataset(tmp_path / "train").require_intact()


@pytest.mark.parametrize(
    "left", ["another request", "no journal", "torn journal", "short images", "no images"]
)
def test_what_cannot_be_gone_on_from_is_written_anew(tmp_path, left):
    write(tmp_path / "whole")
    stopped_after(tmp_path / "train", 5)
    journal, images = tmp_path / ".train.staging.json", tmp_path / ".train.staging" / "images.npy"
    if left == "no journal":
        journal.unlink()
    elif left == "torn journal":
        journal.write_text("{")
    elif left == "short images":
        os.truncate(images, images.stat().st_size - 1)
    elif left == "no images":
        images.unlink()
    request = "another" if left == "another request" else "this"
    with staged_directory(tmp_path / "train", request=request, replace=False) as staging:
        assert staging.other_request == (left == "another request")
        with packed_writer(staging, facts(), SQUARE, lambda: None) as writer:
            assert writer.done == 0
    assert not journal.exists()
    write(tmp_path / "train", replace=True)
    assert content_of(tmp_path / "train") == content_of(tmp_path / "whole")


def test_a_stop_before_anything_was_kept_leaves_no_trace(tmp_path):
    stopped_after(tmp_path / "home" / "tiny" / "train", 0)
    assert everything_under(tmp_path) == []


def test_a_journal_whose_work_is_done_is_no_hindrance(tmp_path):
    write(tmp_path / "train")
    # killed between the rename of the directory and the end of its journal
    (tmp_path / ".train.staging.json").write_text('{"schema": 1, "request": "this", "done": 11}')
    write(tmp_path / "train", images=IMAGES[:5], labels=LABELS[:5], replace=True)
    assert PreparedDataset(tmp_path / "train").count == 5
    assert everything_under(tmp_path)[0] == "train"


def rewrite_record(directory, **changes):
    path = directory / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE = {
    "no images": lambda path: (path / "images.npy").unlink(),
    "truncated images": lambda path: os.truncate(path / "images.npy", 400),
    "empty images": lambda path: (path / "images.npy").write_bytes(b""),
    "wrong dtype": lambda path: np.save(path / "images.npy", IMAGES.astype(np.float32)),
    "wrong shape": lambda path: np.save(path / "images.npy", IMAGES[:, :5]),
    "no labels": lambda path: (path / "labels.npy").unlink(),
    "label too large": lambda path: np.save(path / "labels.npy", LABELS + 1),
    "label negative": lambda path: np.save(path / "labels.npy", LABELS - 1),
    "labels too few": lambda path: np.save(path / "labels.npy", LABELS[:9]),
    "labels of floats": lambda path: np.save(path / "labels.npy", LABELS.astype(float)),
    "record cut": lambda path: os.truncate(path / "dataset.json", 40),
    "record no object": lambda path: (path / "dataset.json").write_text("[1]"),
    "record deep": lambda path: (path / "dataset.json").write_text("[" * 100_000),
    "record not text": lambda path: (path / "dataset.json").write_bytes(b"\xff\xfe\x00"),
    "count of text": lambda path: rewrite_record(path, count="11"),
    "count of truth": lambda path: rewrite_record(path, count=True),
    "count zero": lambda path: rewrite_record(path, count=0),
    "count other": lambda path: rewrite_record(path, count=12),
    "count huge": lambda path: rewrite_record(path, count=10**30),
    "two channels": lambda path: rewrite_record(path, channels=2),
    "classes of numbers": lambda path: rewrite_record(path, class_names=[1, 2, 3]),
    "newer schema": lambda path: rewrite_record(path, schema=DATASET_SCHEMA + 1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused_on_opening(tmp_path, damage):
    write(tmp_path / "train")
    DAMAGE[damage](tmp_path / "train")
    with pytest.raises(CorruptError) as caught:
        PreparedDataset(tmp_path / "train")
    assert str(tmp_path / "train") in caught.value.what
    assert caught.value.remedy
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("file", ["images.npy", "labels.npy"])
def test_pickled_objects_are_not_loaded(tmp_path, file):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    write(tmp_path / "train")
    for content in (np.array([Trap()], dtype=object), None):
        if content is None:
            (tmp_path / "train" / file).write_bytes(pickle.dumps(Trap()))
        else:
            np.save(tmp_path / "train" / file, content, allow_pickle=True)
        with pytest.raises(CorruptError, match="train"):
            PreparedDataset(tmp_path / "train")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(("file", "offset"), [("images.npy", 200), ("labels.npy", 128)])
def test_a_flipped_bit_is_found_when_every_pixel_is_read(tmp_path, file, offset):
    write(tmp_path / "train")
    path = tmp_path / "train" / file
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    dataset = PreparedDataset(tmp_path / "train")
    with pytest.raises(CorruptError):
        dataset.require_intact()
