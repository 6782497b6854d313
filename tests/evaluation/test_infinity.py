"""The Frechet distance of infinitely many samples, where it is known."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from diffcli.errors import UsageError
from diffcli.evaluation.frechet import frechet_distance
from diffcli.evaluation.infinity import frechet_at_infinity, rows_needed
from diffcli.evaluation.moments import Moments, moments_of

DIMENSIONS = 32
STANDARD = Moments(
    count=0,
    mean=torch.zeros(DIMENSIONS, dtype=torch.float64),
    covariance=torch.eye(DIMENSIONS, dtype=torch.float64),
)


def drawn(rows, seed):
    return torch.randn(rows, DIMENSIONS, generator=torch.Generator().manual_seed(seed))


def test_it_comes_nearer_to_the_truth_than_the_distance_itself():
    samples = [1.2 * drawn(1500, seed) + 0.1 for seed in range(6)]
    truth = DIMENSIONS * (0.1**2 + 0.2**2)
    plain = [frechet_distance(moments_of(some), STANDARD) for some in samples]
    extrapolated = [frechet_at_infinity(some, STANDARD, seed=0).value for some in samples]
    bias = sum(plain) / 6 - truth
    assert bias > 0.1
    assert abs(sum(extrapolated) / 6 - truth) < 0.5 * bias


def test_the_line_goes_through_the_distances():
    samples = drawn(1000, seed=1)
    found = frechet_at_infinity(samples, STANDARD, seed=0)
    assert len(found.counts) == len(found.distances) == 15
    assert found.counts[0] == rows_needed(DIMENSIONS) // 2
    assert found.counts[-1] == 1000
    steps = {later - earlier for earlier, later in pairwise(found.counts)}
    assert max(steps) - min(steps) <= 1
    # the last subset is all of them, in another order
    assert found.distances[-1] == pytest.approx(frechet_distance(moments_of(samples), STANDARD), rel=1e-9)
    inverse = torch.tensor(found.counts).double().reciprocal()
    design = torch.stack((torch.ones(15, dtype=torch.float64), inverse), dim=1)
    heights = torch.tensor(found.distances, dtype=torch.float64)[:, None]
    value, slope = torch.linalg.lstsq(design, heights).solution[:, 0].tolist()
    assert found.value == pytest.approx(value, rel=1e-6, abs=1e-9)
    assert found.slope == pytest.approx(slope, rel=1e-6)
    assert found.slope > 0


def test_subsets_depend_on_the_seed_alone():
    samples = drawn(300, seed=1)
    first = frechet_at_infinity(samples, STANDARD, seed=0)
    torch.manual_seed(99)
    assert frechet_at_infinity(samples, STANDARD, seed=0) == first
    assert frechet_at_infinity(samples, STANDARD, seed=1).value != first.value


def test_it_refuses_what_has_no_line():
    assert rows_needed(2048) == 10_000
    needed = rows_needed(DIMENSIONS)
    with pytest.raises(UsageError, match=f"needs {needed} images or more, there are {needed - 1}"):
        frechet_at_infinity(drawn(needed - 1, seed=1), STANDARD, seed=0)
    assert frechet_at_infinity(drawn(needed, seed=1), STANDARD, seed=0).counts[0] == needed // 2
