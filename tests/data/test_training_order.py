"""Laws of the order in which training sees the images."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcli.data.order import EpochFlips, TrainingOrder
from diffcli.randomness.streams import Stream, random_words

seeds = st.integers(0, 2**63 - 1)
counts = st.integers(1, 40)
batch_sizes = st.integers(1, 25)


def ordered(order, steps, batch_size):
    rows = [order.at(step, range(batch_size)) for step in steps]
    return torch.cat([row.epochs for row in rows]), torch.cat([row.indices for row in rows])


@given(seed=seeds, count=counts, batch_size=batch_sizes)
def test_every_epoch_is_a_permutation_whatever_the_batch_size(seed, count, batch_size):
    order = TrainingOrder(seed=seed, count=count, batch_size=batch_size)
    steps = range(-(-3 * count // batch_size))
    epochs, indices = ordered(order, steps, batch_size)
    assert torch.equal(epochs, epochs.sort().values)
    for epoch in range(3):
        assert sorted(indices[epochs == epoch].tolist()) == list(range(count))


# many epochs of one image, and whatever else the machine does
@settings(deadline=None)
@given(seed=seeds, count=counts, batch_size=batch_sizes, other=batch_sizes)
def test_batch_sizes_cut_one_and_the_same_sequence(seed, count, batch_size, other):
    length = 60
    sequences = []
    for size in (batch_size, other):
        order = TrainingOrder(seed=seed, count=count, batch_size=size)
        sequences.append(ordered(order, range(-(-length // size)), size)[1][:length])
    assert torch.equal(*sequences)


@given(seed=seeds, count=counts, batch_size=batch_sizes, ranks=st.integers(1, 6), step=st.integers(0, 2**30))
def test_ranks_split_a_batch_without_changing_it(seed, count, batch_size, ranks, step):
    whole = TrainingOrder(seed=seed, count=count, batch_size=batch_size).at(step, range(batch_size))
    bounds = [rank * batch_size // ranks for rank in range(ranks + 1)]
    parts = [
        # each rank is a process of its own, so nothing is shared between them
        TrainingOrder(seed=seed, count=count, batch_size=batch_size).at(step, range(start, stop))
        for start, stop in pairwise(bounds)
    ]
    assert torch.equal(torch.cat([part.indices for part in parts]), whole.indices)
    assert torch.equal(torch.cat([part.epochs for part in parts]), whole.epochs)


@settings(deadline=None)
@given(data=st.data(), seed=seeds, count=counts, batch_size=batch_sizes, step=st.integers(0, 2**20))
def test_several_steps_at_once_are_those_steps(data, seed, count, batch_size, step):
    positions = range(*sorted(data.draw(st.tuples(*[st.integers(0, batch_size)] * 2))))
    steps = range(step, step + data.draw(st.integers(1, 5)))
    for asked in (positions, range(batch_size)):
        order = TrainingOrder(seed=seed, count=count, batch_size=batch_size)
        one_by_one = [order.at(each, asked) for each in steps]
        over = TrainingOrder(seed=seed, count=count, batch_size=batch_size).over(steps, asked)
        assert torch.equal(over.indices, torch.cat([each.indices for each in one_by_one]))
        assert torch.equal(over.epochs, torch.cat([each.epochs for each in one_by_one]))
        flips = EpochFlips(seed=seed, count=count)
        assert torch.equal(flips.of(over), torch.cat([flips.of(each) for each in one_by_one]))


@given(seed=seeds, steps=st.permutations(range(8)))
def test_a_step_does_not_depend_on_what_was_asked_before(seed, steps):
    order = TrainingOrder(seed=seed, count=7, batch_size=5)
    asked = {step: order.at(step, range(5)).indices for step in steps}
    for step, indices in asked.items():
        fresh = TrainingOrder(seed=seed, count=7, batch_size=5)
        assert torch.equal(fresh.at(step, range(5)).indices, indices)


def test_seeds_and_epochs_give_other_orders():
    orders = [TrainingOrder(seed=seed, count=50, batch_size=50) for seed in (0, 1)]
    rows = [tuple(order.at(step, range(50)).indices.tolist()) for order in orders for step in (0, 1)]
    assert len(set(rows)) == 4


def test_an_empty_share_is_empty():
    order = TrainingOrder(seed=0, count=3, batch_size=2)
    assert order.at(5, range(2, 2)).indices.shape == (0,)


@settings(deadline=None)
@given(seed=seeds, count=counts, batch_size=batch_sizes, step=st.integers(0, 2**20))
def test_flips_are_the_words_of_their_stream(seed, count, batch_size, step):
    ordered = TrainingOrder(seed=seed, count=count, batch_size=batch_size).at(step, range(batch_size))
    words = random_words(seed, Stream.FLIP, ordered.indices, step=ordered.epochs, count=1)
    assert torch.equal(EpochFlips(seed=seed, count=count).of(ordered), words[:, 0] < 2**31)
