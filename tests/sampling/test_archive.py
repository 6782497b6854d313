"""Sample archives: which batch holds what, what an interruption leaves, and the joined file."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import tracemalloc

import numpy as np
import pytest

from diffcli.errors import CorruptError, StorageError
from diffcli.sampling.archive import ArchiveParts, ArchivePlan, write_archive

PLAN = ArchivePlan(count=10, height=2, width=3, channels=3, batch_size=4)
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 2, 3, 3), dtype=np.uint8)
LABELS = np.arange(10)[::-1].copy()
PADDED = np.concatenate([IMAGES, np.full((2, 2, 3, 3), 255, np.uint8)])


@pytest.fixture
def parts(tmp_path) -> ArchiveParts:
    begun = ArchiveParts(tmp_path / "parts", PLAN)
    begun.begin("a request")
    return begun


def fill(parts, batches):
    for batch in batches:
        parts.write(batch, PADDED[PLAN.indices(batch)])


def test_an_archive_is_named_as_the_references():
    assert PLAN.file_name == "samples_10x2x3x3.npz"


@pytest.mark.parametrize(("count", "batches"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_the_last_batch_may_be_partly_padding(count, batches):
    plan = dataclasses.replace(PLAN, count=count)
    assert plan.batches == batches
    covered = [index for batch in range(batches) for index in plan.indices(batch)]
    assert covered == list(range(4 * batches))


def test_parts_are_read_in_order_and_without_padding(parts):
    assert parts.missing() == (0, 1, 2)
    fill(parts, [2, 0])
    assert parts.missing() == (1,)
    fill(parts, [1])
    assert parts.missing() == ()
    batches = list(parts.read())
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert np.array_equal(np.concatenate(batches), IMAGES)


def test_the_same_request_goes_on_with_its_parts(parts, tmp_path):
    fill(parts, [0, 2])
    again = ArchiveParts(tmp_path / "parts", PLAN)
    again.begin("a request")
    assert again.missing() == (1,)


def test_another_request_starts_with_none(parts, tmp_path):
    fill(parts, [0, 2])
    other = ArchiveParts(tmp_path / "parts", PLAN)
    other.begin("another request")
    assert other.missing() == (0, 1, 2)
    fill(other, [1])
    other.begin("another request")
    assert other.missing() == (0, 2)


def test_parts_of_an_unknown_request_are_dropped(parts, tmp_path):
    fill(parts, [0])
    (tmp_path / "parts" / "request.json").unlink()
    parts.begin("a request")
    assert parts.missing() == (0, 1, 2)


@pytest.mark.parametrize(("count", "missing"), [(4, ()), (10, ()), (8, ()), (11, (2,)), (13, (2, 3))])
def test_parts_serve_another_count_as_far_as_they_are_whole(count, missing, parts, tmp_path):
    fill(parts, range(3))
    other = ArchiveParts(tmp_path / "parts", dataclasses.replace(PLAN, count=count))
    other.begin("a request")
    assert other.missing() == missing
    whole = list(itertools.islice(other.read(), min(2, other.plan.batches)))
    assert np.array_equal(np.concatenate(whole), IMAGES[: 4 * len(whole)])


def test_parts_of_another_request_are_taken_where_they_have_the_same_key(parts, tmp_path):
    fill(parts, [0, 2])
    other = ArchiveParts(tmp_path / "other", PLAN)
    other.begin("a request")
    fill(other, [1])
    assert other.take_from(parts.directory) == 6
    assert np.array_equal(np.concatenate(list(other.read())), IMAGES)
    assert parts.missing() == (1,)
    foreign = ArchiveParts(tmp_path / "foreign", PLAN)
    foreign.begin("another request")
    assert foreign.take_from(parts.directory) == foreign.take_from(tmp_path / "nowhere") == 0
    assert foreign.missing() == (0, 1, 2)


def test_parts_that_come_late_are_waited_for_and_those_that_never_come_told(parts):
    fill(parts, [0, 1])
    with pytest.raises(StorageError, match="1 of 3 batches are not in"):
        parts.await_all(patience_seconds=0.05)
    late = threading.Timer(0.05, fill, (parts, [2]))
    late.start()
    parts.await_all()
    assert parts.missing() == ()
    late.join()


def test_removed_parts_leave_nothing(parts, tmp_path):
    fill(parts, [0])
    parts.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_part_is_missing_and_told_by_name_where_it_is_needed(parts, tmp_path):
    fill(parts, range(3))
    damaged = tmp_path / "parts" / "batch-000001.bin"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    batches = parts.read()
    assert np.array_equal(next(batches), IMAGES[:4])
    with pytest.raises(CorruptError, match=r"batch-000001\.bin is 71 bytes, needed are 72"):
        next(batches)
    assert parts.missing() == (1,)


def test_an_archive_holds_what_was_written(parts, tmp_path):
    fill(parts, range(3))
    path = tmp_path / PLAN.file_name
    write_archive(path, PLAN, parts.read(), LABELS)
    with np.load(path) as archive:
        assert archive.files == ["arr_0", "arr_1"]
        images, labels = archive["arr_0"], archive["arr_1"]
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert np.array_equal(images, IMAGES)
    assert np.array_equal(labels, LABELS)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["parts", PLAN.file_name]


def test_without_labels_there_is_no_second_array(tmp_path):
    path = tmp_path / PLAN.file_name
    write_archive(path, PLAN, iter([IMAGES]), None)
    with np.load(path) as archive:
        assert archive.files == ["arr_0"]
        assert np.array_equal(archive["arr_0"], IMAGES)


def test_the_same_samples_are_the_same_file_however_they_come(tmp_path, monkeypatch):
    write_archive(tmp_path / "first.npz", PLAN, iter([IMAGES[:4], IMAGES[4:]]), LABELS)
    # a file made on another day
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    columns_first = map(np.asfortranarray, np.split(IMAGES, 5))
    write_archive(tmp_path / "second.npz", PLAN, columns_first, LABELS)
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()


def test_joining_needs_the_memory_of_a_few_batches(tmp_path):
    plan = ArchivePlan(count=64 * 256, height=32, width=32, channels=1, batch_size=256)
    batch_bytes = 256 * 32 * 32
    parts = ArchiveParts(tmp_path / "parts", plan)
    parts.begin("a request")
    for batch in range(plan.batches):
        parts.write(batch, np.full((256, 32, 32, 1), batch, np.uint8))
    tracemalloc.start()
    try:
        write_archive(tmp_path / plan.file_name, plan, parts.read(), None)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # at least one is there: the measure sees numpy's memory
    assert batch_bytes < peak_bytes < 3.5 * batch_bytes
    with np.load(tmp_path / plan.file_name) as archive:
        assert np.array_equal(archive["arr_0"][:, 0, 0, 0], np.repeat(np.arange(64), 256))
