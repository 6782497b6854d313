"""Timesteps drawn for an estimate: where they lie, what they belong to, and that the estimate is unbiased."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcli.evaluation.timestep_strata import TimestepStrata

IMAGES = torch.arange(4000)
CUTS = st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@given(CUTS, st.integers(0, 2**63 - 1))
def test_each_stratum_gives_one_step(cut, seed):
    chain_steps, count = cut
    strata = TimestepStrata(chain_steps=chain_steps, count=count)
    assert sum(strata.sizes) == chain_steps
    assert len(strata.sizes) == count
    assert strata.sizes[0] == 1 or count == 1
    assert min(strata.sizes) >= 1
    drawn = strata.drawn(seed, IMAGES[:9])
    assert drawn.shape == (9, count)
    ends = torch.tensor(strata.sizes).cumsum(0)
    assert bool((drawn < ends).all())
    assert bool((drawn >= ends - torch.tensor(strata.sizes)).all())


def test_the_whole_chain_leaves_nothing_to_chance():
    strata = TimestepStrata(chain_steps=12, count=12)
    assert strata.every_step
    assert torch.equal(strata.drawn(5, IMAGES[:3]), torch.arange(12).expand(3, 12))
    assert not TimestepStrata(chain_steps=12, count=11).every_step


def test_steps_belong_to_seed_and_image():
    strata = TimestepStrata(chain_steps=1000, count=7)
    together = strata.drawn(3, IMAGES[:20])
    assert torch.equal(strata.drawn(3, torch.tensor([13])), together[13:14])
    assert not torch.equal(strata.drawn(4, IMAGES[:20]), together)
    assert len({tuple(row) for row in together.tolist()}) == 20


def test_all_steps_of_a_stratum_are_drawn_equally_often():
    strata = TimestepStrata(chain_steps=13, count=3)
    assert strata.sizes == (1, 3, 9)
    found = torch.bincount(strata.drawn(0, IMAGES).flatten(), minlength=13)
    for stratum, size in zip(found.split(strata.sizes), strata.sizes, strict=True):
        share = 1 / size
        deviation = math.sqrt(len(IMAGES) * share * (1 - share))
        assert float((stratum - len(IMAGES) * share).abs().max()) <= 4 * deviation


def test_strata_grow_in_proportion_to_the_timestep():
    assert TimestepStrata(chain_steps=1000, count=4).sizes == (1, 9, 90, 900)
    assert TimestepStrata(chain_steps=1000, count=10).sizes == (1, 1, 2, 5, 11, 24, 52, 114, 248, 542)
    assert TimestepStrata(chain_steps=4000, count=250).sizes[:40] == (1,) * 40


def test_an_estimate_of_terms_that_fall_like_those_of_a_network_is_close():
    terms = 1 / torch.arange(1, 4001, dtype=torch.float64)
    strata = TimestepStrata(chain_steps=4000, count=100)
    estimates = (terms[strata.drawn(1, IMAGES)] * strata.weights).sum(dim=1)
    whole = float(terms.sum())
    deviation = float(estimates.std())
    assert abs(float(estimates.mean()) - whole) < 4 * deviation / math.sqrt(len(IMAGES))
    # with strata of one length it would be 6.8
    assert deviation < 0.002 * whole


@pytest.mark.parametrize(("chain_steps", "count"), [(13, 1), (13, 3), (13, 5), (12, 4), (9, 9)])
def test_the_mean_over_all_draws_is_the_whole_sum(chain_steps, count):
    strata = TimestepStrata(chain_steps=chain_steps, count=count)
    terms = torch.arange(chain_steps) ** 3 % 101
    # shares that meet each step of a stratum equally often, whatever its length
    draws = math.lcm(*strata.sizes)
    shares = (torch.arange(draws, dtype=torch.float64)[:, None] + 0.5) / draws
    steps = strata.steps_at(shares.expand(draws, count))
    estimates = terms[steps] * torch.tensor(strata.sizes)
    assert int(estimates.sum()) == draws * int(terms.sum())
