"""Philox against Random123's known answers, and the laws of the streams built on it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcli.randomness.philox import Key, Words, philox_4x32
from diffcli.randomness.streams import Stream, normal, permutation, random_words, uniform

KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_random123_known_answers(counter, key, expected):
    words = philox_4x32(Words(*(torch.tensor([word]) for word in counter)), Key(*key))
    assert tuple(int(word) for word in words) == expected


@given(
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(0, 2**32 - 1),
    items=st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=40, unique=True),
)
def test_numbers_of_an_item_do_not_depend_on_its_neighbours(seed, step, items):
    together = normal(seed, Stream.INITIAL_NOISE, torch.tensor(items), (3, 5, 7), step=step)
    for row, item in enumerate(items):
        alone = normal(seed, Stream.INITIAL_NOISE, torch.tensor([item]), (3, 5, 7), step=step)
        assert torch.equal(together[row : row + 1], alone)


def test_a_tensor_of_steps_is_the_same_as_one_step_each():
    items, steps = torch.tensor([5, 6, 7]), torch.tensor([0, 9, 2**32 - 1])
    together = random_words(1, Stream.STEP_NOISE, items, step=steps, count=6)
    for row in range(3):
        alone = random_words(1, Stream.STEP_NOISE, items[row : row + 1], step=int(steps[row]), count=6)
        assert torch.equal(together[row], alone[0])


def test_seed_stream_step_and_item_all_change_the_bits():
    base = {"seed": 3, "stream": Stream.FLIP, "step": 4, "item": 5}
    seen = set()
    for change in [{}, {"seed": 3 + 2**40}, {"stream": Stream.CROP}, {"step": 5}, {"item": 5 + 2**33}]:
        case = base | change
        words = random_words(
            case["seed"], case["stream"], torch.tensor([case["item"]]), step=case["step"], count=4
        )
        seen.add(tuple(words[0].tolist()))
    assert len(seen) == 5


def test_normal_numbers_have_the_moments_of_the_normal_distribution():
    numbers = normal(0, Stream.TRAINING_NOISE, torch.arange(64), (3, 64, 64), step=0).double()
    count = numbers.numel()
    assert abs(numbers.mean()) < 5 / count**0.5
    assert abs((numbers**2).mean() - 1) < 5 * (2 / count) ** 0.5
    assert abs((numbers**4).mean() - 3) < 5 * (96 / count) ** 0.5
    neighbours = (numbers.flatten()[:-1] * numbers.flatten()[1:]).mean()
    assert abs(neighbours) < 5 / count**0.5


def test_uniform_numbers_lie_in_the_half_open_interval_and_are_flat():
    numbers = uniform(0, Stream.TIMESTEP, torch.arange(100_000), step=7)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = torch.histc(numbers, bins=10, min=0, max=1)
    assert ((counts - 10_000).abs() < 500).all()


@given(seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 2**31), length=st.integers(0, 300))
def test_a_permutation_holds_every_index_once(seed, epoch, length):
    assert sorted(permutation(seed, epoch, length).tolist()) == list(range(length))


def test_epochs_have_different_orders():
    assert not torch.equal(permutation(0, 0, 100), permutation(0, 1, 100))
