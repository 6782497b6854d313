"""Batches as pure functions of (seed, step), and the threads that compute them ahead."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from diffcli.commands.prepare import DigitsRequest, prepare_digits
from diffcli.config.sections import DataConfig
from diffcli.data.batches import BatchSource, Prefetcher, network_images
from diffcli.data.prepared import PreparedDataset
from diffcli.errors import CorruptError, UsageError
from diffcli.images.conversion import from_uint8


class MemoryImages:
    """A dataset in memory."""

    location = "memory"
    content_hash = ""
    weak_hash = False

    def __init__(self, images, labels=None):
        self.images = images
        self.count, self.height, self.width, self.channels = images.shape
        self.all_labels = labels
        self.class_names = () if labels is None else tuple(str(n) for n in range(int(labels.max()) + 1))

    def read(self, indices, out=None):
        return np.take(self.images, indices, axis=0, out=out)

    def labels(self, indices):
        return self.all_labels[indices]


def noise(count=10, size=8, channels=3):
    return np.random.default_rng(3).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def same(one, other):
    return (
        torch.equal(one.images, other.images)
        and torch.equal(one.flips, other.flips)
        and (one.labels is None) == (other.labels is None)
        and (one.labels is None or torch.equal(one.labels, other.labels))
    )


CONFIGS = {
    "plain": DataConfig(resolution=8),
    "flipped": DataConfig(resolution=8, flip=True),
    "center": DataConfig(resolution=6, flip=True),
    "random": DataConfig(resolution=6, flip=True, crop="random"),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_does_not_depend_on_ranks_or_on_what_was_asked_before(config, channels):
    config = DataConfig(**(vars(config) | {"channels": channels}))
    images = noise(channels=channels)
    labels = np.arange(10) % 4

    def fresh():
        return BatchSource(MemoryImages(images, labels), config, seed=5, batch_size=7)

    shared = fresh()
    for step in (9, 0, 4):
        whole = fresh().batch(step, range(7))
        assert whole.images.shape == (7, config.resolution, config.resolution, channels)
        assert (whole.images.dtype, whole.labels.dtype, whole.flips.dtype) == (
            torch.uint8,
            torch.int64,
            torch.bool,
        )
        assert same(shared.batch(step, range(7)), whole)
        for parts in ([range(3), range(3, 7)], [range(1), range(1, 2), range(2, 6), range(6, 7)]):
            pieces = [fresh().batch(step, part) for part in parts]
            for field in ("images", "labels", "flips"):
                joined = torch.cat([getattr(piece, field) for piece in pieces])
                assert torch.equal(joined, getattr(whole, field))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("positions", [range(7), range(2, 6)], ids=str)
def test_batches_made_at_once_are_those_of_their_steps(config, positions):
    for labels in (np.arange(10) % 4, None):
        source = BatchSource(MemoryImages(noise(), labels), config, seed=5, batch_size=7)
        together = source.batches(range(3, 9), positions)
        assert len(together) == 6
        for step, batch in enumerate(together, start=3):
            assert same(batch, source.batch(step, positions))
        if config == CONFIGS["flipped"]:
            assert [len(batch.images) for batch in source.batches(range(2), range(3, 3))] == [0, 0]


def test_images_of_the_exact_size_pass_unchanged_with_their_labels():
    images = noise()
    source = BatchSource(MemoryImages(images, np.arange(10)), CONFIGS["plain"], seed=0, batch_size=10)
    batch = source.batch(0, range(10))
    assert sorted(batch.labels.tolist()) == list(range(10))
    assert np.array_equal(batch.images.numpy(), images[batch.labels.numpy()])
    assert not batch.flips.any()
    unlabelled = BatchSource(MemoryImages(images), CONFIGS["plain"], seed=0, batch_size=4)
    assert unlabelled.batch(0, range(4)).labels is None


def flips_by_epoch(seed, batch_size, epochs=40):
    labels = np.arange(10)
    source = BatchSource(MemoryImages(noise(), labels), CONFIGS["flipped"], seed=seed, batch_size=batch_size)
    steps = range(epochs * 10 // batch_size)
    batches = [source.batch(step, range(batch_size)) for step in steps]
    order = torch.cat([batch.labels for batch in batches]).view(epochs, 10)
    flips = torch.cat([batch.flips for batch in batches]).view(epochs, 10)
    return torch.gather(flips, 1, order.argsort(dim=1))


def test_flips_belong_to_epoch_and_image_not_to_the_batch():
    flips = flips_by_epoch(1, batch_size=10)
    assert torch.equal(flips, flips_by_epoch(1, batch_size=8))
    assert not torch.equal(flips, flips_by_epoch(2, batch_size=8))
    assert 0.4 < flips.float().mean() < 0.6
    # no image and no epoch always gets the same
    assert 0 < flips.float().mean(0).min() < flips.float().mean(0).max() < 1
    assert len(flips.unique(dim=0)) > 35


def test_random_crops_differ_between_epochs_and_center_crops_do_not():
    images = MemoryImages(noise(1, size=40))
    for crop, different in (("random", range(15, 31)), ("center", [1])):
        config = DataConfig(resolution=16, crop=crop)
        batch = BatchSource(images, config, seed=0, batch_size=30).batch(0, range(30))
        assert len(batch.images.flatten(1).unique(dim=0)) in different


def test_fewer_images_than_a_batch_repeat_over_epochs():
    source = BatchSource(MemoryImages(noise(3), np.arange(3)), CONFIGS["plain"], seed=0, batch_size=8)
    labels = torch.cat([source.batch(step, range(8)).labels for step in range(3)])
    assert torch.bincount(labels).tolist() == [8, 8, 8]
    alone = BatchSource(MemoryImages(noise(1), np.arange(1)), CONFIGS["plain"], seed=0, batch_size=8)
    assert alone.batch(7, range(8)).labels.tolist() == [0] * 8


@pytest.mark.parametrize(
    ("config", "message", "remedy"),
    [
        (DataConfig(resolution=16), "data.resolution is 16, but .* 8x8", "data.resolution=8"),
        (DataConfig(resolution=8, channels=1), "data.channels is 1, but .* 3", "data.channels=3"),
        (DataConfig(resolution=8, crop="random"), "data.crop is random", "--size 10 or more"),
    ],
)
def test_datasets_that_do_not_fit_are_refused(config, message, remedy):
    with pytest.raises(UsageError, match=message) as caught:
        BatchSource(MemoryImages(noise()), config, seed=0, batch_size=2)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("channels", [1, 3])
def test_network_images_mirror_left_and_right(channels):
    images = torch.from_numpy(noise(4, channels=channels))
    flips = torch.tensor([True, False, False, True])
    ready = network_images(images, flips)
    assert ready.dtype == torch.float32
    assert ready.is_contiguous()
    expected = from_uint8(images).permute(0, 3, 1, 2)
    assert torch.equal(ready[1:3], expected[1:3])
    assert torch.equal(ready[[0, 3]], expected[[0, 3]].flip(-1))


def test_prefetched_batches_are_the_same_in_order():
    source = BatchSource(MemoryImages(noise(), np.arange(10)), CONFIGS["random"], seed=0, batch_size=4)
    for threads, ahead in ((1, 1), (3, 5)):
        with Prefetcher(source, range(3, 20), range(1, 4), ahead=ahead, threads=threads) as batches:
            got = list(batches)
        assert len(got) == 17
        assert all(same(batch, source.batch(step, range(1, 4))) for step, batch in enumerate(got, start=3))


class SlowSource:
    """Counts what is computed; each batch takes a while."""

    def __init__(self, seconds=0.0, fail_at=None, batches_at_once=1):
        self.seconds, self.fail_at = seconds, fail_at
        self.batches_at_once = batches_at_once
        self.started = []

    def batch(self, step, _positions):
        self.started.append(step)
        time.sleep(self.seconds)
        if step == self.fail_at:
            raise CorruptError("bad image")
        return step

    def batches(self, steps, positions):
        return [self.batch(step, positions) for step in steps]


def test_only_a_bounded_number_is_computed_ahead_and_closing_ends_the_threads():
    threads_before = threading.active_count()
    source = SlowSource()
    with Prefetcher(source, range(1000), range(1), ahead=3) as batches:
        assert [next(batches) for _ in range(4)] == [0, 1, 2, 3]
        time.sleep(0.05)
        assert max(source.started) <= 6
    assert threading.active_count() == threads_before
    with pytest.raises(StopIteration):
        next(batches)


def test_waiting_is_measured():
    with Prefetcher(SlowSource(0.02), range(4), range(1), ahead=1, threads=1) as batches:
        assert list(batches) == [0, 1, 2, 3]
    assert 0.04 < batches.waited_seconds < 5
    source = SlowSource()
    with Prefetcher(source, range(3), range(1), ahead=3) as batches:
        while len(source.started) < 3:
            time.sleep(0.05)
        list(batches)
    assert batches.waited_seconds < 0.04


@pytest.mark.parametrize("batches_at_once", [1, 2, 3, 8])
def test_an_error_is_raised_at_its_step(batches_at_once):
    source = SlowSource(fail_at=4, batches_at_once=batches_at_once)
    with Prefetcher(source, range(2, 11), range(1)) as batches:
        assert [next(batches), next(batches)] == [2, 3]
        with pytest.raises(CorruptError):
            next(batches)


@pytest.mark.parametrize("batches_at_once", [1, 2, 3, 8])
def test_batches_made_together_come_one_by_one_in_order(batches_at_once):
    with Prefetcher(SlowSource(batches_at_once=batches_at_once), range(5, 12), range(1)) as batches:
        assert list(batches) == list(range(5, 12))


def test_small_batches_of_prepared_pixels_are_made_together(tmp_path):
    (split, _) = prepare_digits(DigitsRequest(home=tmp_path)).splits
    dataset = PreparedDataset(split.path)
    config = DataConfig(resolution=8, channels=1, flip=True)
    assert BatchSource(dataset, config, seed=0, batch_size=100_000).batches_at_once == 1
    source = BatchSource(dataset, config, seed=0, batch_size=64)
    assert source.batches_at_once == 8
    assert BatchSource(MemoryImages(noise()), CONFIGS["plain"], seed=0, batch_size=2).batches_at_once == 1
    with Prefetcher(source, range(3, 40), range(10, 50)) as batches:
        for step, batch in enumerate(batches, start=3):
            assert same(batch, source.batch(step, range(10, 50)))
    assert step == 39
