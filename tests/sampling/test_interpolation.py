"""The way from one x_T to another: its ends, its length, and what stays the same along it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from diffcli.sampling.interpolation import slerp
from diffcli.sampling.noise import initial_noise

SHAPE = (3, 8, 8)
A, B = initial_noise(1, torch.arange(2), SHAPE)
AS_LONG = B * (A.norm() / B.norm())


def angle(x, y):
    x, y = x.double().flatten(), y.double().flatten()
    return math.acos(float(x @ y / (x.norm() * y.norm())))


def test_the_ends_are_the_two_bit_by_bit():
    way = slerp(A, B, torch.linspace(0, 1, 7))
    assert way.shape == (7, *SHAPE)
    assert way.dtype == torch.float32
    assert torch.equal(way[0], A)
    assert torch.equal(way[-1], B)


def test_between_vectors_of_one_length_equal_shares_are_equal_angles():
    way = slerp(A, AS_LONG, torch.linspace(0, 1, 5))
    whole = angle(A, AS_LONG)
    for before, after in itertools.pairwise(way):
        assert angle(before, after) == pytest.approx(whole / 4, rel=1e-5)
    assert angle(way[0], way[2]) == pytest.approx(whole / 2, rel=1e-5)


def test_the_length_stays_where_a_straight_line_would_shrink():
    for x in slerp(A, AS_LONG, torch.linspace(0, 1, 9)):
        assert float(x.norm()) == pytest.approx(float(A.norm()), rel=1e-5)
    assert float(((A + AS_LONG) / 2).norm()) < 0.9 * float(A.norm())


def test_the_way_back_is_the_way_there_turned_round():
    shares = torch.linspace(0, 1, 6)
    torch.testing.assert_close(slerp(A, B, shares), slerp(B, A, shares).flip(0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_on_one_line_it_is_linear(factor):
    way = slerp(A, factor * A, torch.linspace(0, 1, 3))
    torch.testing.assert_close(way[1], (1 + factor) / 2 * A)
    assert way.isfinite().all()
