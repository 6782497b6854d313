"""Squared distances where differences of large sums leave little."""

from __future__ import annotations

import pytest
import torch

from diffcli.evaluation.distances import half_distances, measure_for, row_blocks, squared_distances


def drawn(rows, dimensions, seed=0):
    return torch.randn(rows, dimensions, generator=torch.Generator().manual_seed(seed))


def exact(rows, columns):
    return (rows[:, None].double() - columns[None].double()).square().sum(dim=-1)


def test_they_are_the_sums_of_squares():
    rows, columns = drawn(30, 9), drawn(40, 9, seed=1)
    torch.testing.assert_close(
        squared_distances(rows, columns), exact(rows, columns).float(), rtol=2e-7, atol=0
    )


@pytest.mark.parametrize("shift", [10.0, 1000.0])
def test_a_mean_far_from_zero_costs_no_digits(shift):
    rows, columns = drawn(30, 9) + shift, drawn(40, 9, seed=1) + shift
    torch.testing.assert_close(
        squared_distances(rows, columns), exact(rows, columns).float(), rtol=1e-6, atol=0
    )


def test_near_ones_are_as_exact_as_far_ones():
    rows = drawn(50, 500)
    columns = rows + 1e-3 * drawn(50, 500, seed=1)
    torch.testing.assert_close(
        squared_distances(rows, columns).diag(), exact(rows, columns).float().diag(), rtol=1e-6, atol=0
    )


def test_equal_ones_are_at_no_distance():
    rows = 100 * drawn(300, 500) + 7
    distances = squared_distances(rows, rows.flip(0)).flip(1)
    assert torch.equal(distances.diag(), torch.zeros(300))
    assert (distances + torch.eye(300) > 0).all()
    assert not squared_distances(torch.zeros(2, 3), torch.zeros(2, 3)).signbit().any()


@pytest.mark.parametrize(("count", "first"), [(0, 0), (1, 0), (2048, 0), (2049, 0), (5000, 2048), (9, 9)])
def test_blocks_are_all_rows_once(count, first):
    covered = [row for block in row_blocks(count, first) for row in range(block.start, block.stop)]
    assert covered == list(range(first, count))


def test_half_precision_is_near():
    rows, columns = drawn(30, 64), drawn(40, 64, seed=1)
    torch.testing.assert_close(
        half_distances(rows, columns), exact(rows, columns).float(), rtol=5e-3, atol=5e-2
    )


def test_half_precision_is_taken_only_where_it_was_asked_for_and_holds_all():
    small, large = drawn(30, 64), torch.cat((drawn(29, 64), torch.full((1, 64), 40.0)))
    # below what half holds, while twice the product with another like it is above
    between = torch.full((2, 64), 25.0)
    assert measure_for("float32", small, small) is squared_distances
    assert measure_for("float16", small, small) is half_distances
    assert measure_for("float16", small, large) is squared_distances
    assert measure_for("float16", large, small) is squared_distances
    assert measure_for("float16", between, between) is squared_distances
    assert measure_for("float16", between, small) is half_distances
