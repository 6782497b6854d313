"""The kernel distance: by hand, without bias, and drawn by nothing but the seed."""

from __future__ import annotations

import math

import pytest
import torch

from diffcli.errors import UsageError
from diffcli.evaluation.kernel_distance import kernel_distance, polynomial_kernel, squared_mmd


def drawn(rows, dimensions=6, seed=0):
    return torch.randn(rows, dimensions, generator=torch.Generator().manual_seed(seed))


def pair_by_pair(x, y):
    """Gretton et al. (2012), equation 3, written out."""

    def kernel(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def within(rows):
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
        return math.fsum(kernel(rows[i], rows[j]) for i, j in pairs) / len(pairs)

    across = math.fsum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return within(x) + within(y) - 2 * across


def test_it_is_the_sum_over_pairs():
    x, y = drawn(7), drawn(11, seed=1) + 0.3
    exact = pair_by_pair(x.double().tolist(), y.double().tolist())
    assert squared_mmd(x, y) == pytest.approx(exact, rel=1e-12)
    found = kernel_distance(x, y, seed=5)
    # nothing is left to draw
    assert (found.mean, found.std, found.count) == (squared_mmd(x, y), None, 1)


def test_the_kernel():
    x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert polynomial_kernel(x, y).tolist() == [[(11 / 2 + 1) ** 3, 1]]


def test_one_distribution_is_at_no_distance_in_the_mean():
    values = [squared_mmd(drawn(20, seed=seed), drawn(20, seed=seed + 5000)) for seed in range(400)]
    mean = math.fsum(values) / len(values)
    standard_error = float(torch.tensor(values).std()) / math.sqrt(len(values))
    assert abs(mean) < 4 * standard_error
    # an estimate with the diagonal in it would be this far from 0
    biased = float(polynomial_kernel(drawn(400), drawn(400)).trace()) / 400 / 20
    assert biased > 10 * standard_error
    assert min(values) < 0


def test_the_mean_over_subsets_is_that_of_all():
    x, y = drawn(400), drawn(500, seed=1) + 0.3
    found = kernel_distance(x, y, seed=3, subsets=200, subset_size=100)
    assert found.count == 200
    assert found.mean == pytest.approx(squared_mmd(x, y), abs=4 * found.std / math.sqrt(200))
    assert found.mean > 3 * found.std / math.sqrt(200)


def test_subsets_depend_on_the_seed_alone():
    x, y = drawn(300), drawn(300, seed=1)
    first = kernel_distance(x, y, seed=3, subsets=5, subset_size=50)
    torch.manual_seed(99)
    assert kernel_distance(x, y, seed=3, subsets=5, subset_size=50) == first
    assert kernel_distance(x, y, seed=4, subsets=5, subset_size=50) != first


def test_the_two_sets_are_drawn_apart():
    # the same rows from both would make this far too small, as each row would meet itself
    x = drawn(400)
    found = kernel_distance(x, x, seed=0, subsets=50, subset_size=100)
    assert found.mean == pytest.approx(squared_mmd(x, x), abs=5 * found.std / math.sqrt(50))


def test_only_a_larger_set_is_drawn_from():
    x, y = drawn(30), drawn(400, seed=1)
    found = kernel_distance(x, y, seed=0, subsets=4, subset_size=50)
    assert found.count == 4
    assert found.std > 0


def test_two_images_at_least():
    with pytest.raises(UsageError, match="there are 1 and 7"):
        kernel_distance(drawn(1), drawn(7), seed=0)
