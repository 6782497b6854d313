"""The spread of a Frechet distance over the draw of its samples."""

from __future__ import annotations

import pytest
import torch

from diffcli.evaluation.bootstrap import bootstrap_frechet
from diffcli.evaluation.frechet import frechet_distance
from diffcli.evaluation.moments import moments_of

DIMENSIONS = 4


def drawn(rows, seed):
    return torch.randn(rows, DIMENSIONS, generator=torch.Generator().manual_seed(seed))


REFERENCE = moments_of(drawn(5000, seed=-1))


def test_it_is_about_the_spread_of_new_samples():
    distances = [frechet_distance(moments_of(drawn(500, seed) + 0.5), REFERENCE) for seed in range(200)]
    real = float(torch.tensor(distances).std())
    assert bootstrap_frechet(drawn(500, seed=999) + 0.5, REFERENCE, seed=0, resamples=100) == pytest.approx(
        real, rel=0.3
    )


def test_it_depends_on_the_seed_alone():
    samples = drawn(100, seed=1)
    first = bootstrap_frechet(samples, REFERENCE, seed=0)
    torch.manual_seed(99)
    assert bootstrap_frechet(samples, REFERENCE, seed=0) == first
    assert bootstrap_frechet(samples, REFERENCE, seed=1) != first


def test_samples_that_are_all_the_same_have_no_spread():
    assert bootstrap_frechet(torch.ones(50, DIMENSIONS), REFERENCE, seed=0) == 0
