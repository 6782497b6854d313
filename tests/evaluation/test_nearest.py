"""The nearest stored features, whatever batches they come in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcli.errors import UsageError
from diffcli.evaluation.nearest import nearest_neighbours

# term by term, not by products
DIFFERENCES = "donot_use_mm_for_euclid_dist"


def drawn(rows, dimensions=5, seed=0):
    return torch.randn(rows, dimensions, generator=torch.Generator().manual_seed(seed))


def all_pairs(queries, stored):
    return torch.cdist(queries.double(), stored.double(), compute_mode=DIFFERENCES)


# more than a block each
QUERIES, STORED = drawn(2100), drawn(4500, seed=1)


def test_blocks_give_what_all_pairs_give():
    found = nearest_neighbours(QUERIES, STORED, 3)
    exact = all_pairs(QUERIES, STORED).sort(dim=1, stable=True)
    assert torch.equal(found.indices, exact.indices[:, :3])
    torch.testing.assert_close(found.distances, exact.values[:, :3].float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("batch", [1000, 2048, 4499])
def test_batches_change_nothing(batch):
    whole = nearest_neighbours(QUERIES[:50], STORED, 3)
    found = nearest_neighbours(QUERIES[:50], iter(STORED.split(batch)), 3)
    assert torch.equal(found.indices, whole.indices)
    assert torch.equal(found.distances, whole.distances)


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**31))
def test_ties_go_to_the_lower_index(rows, k, batch, seed):
    # on a grid, where most distances tie
    stored = drawn(max(rows, k), 2, seed).round()
    queries = drawn(7, 2, seed + 1).round()
    found = nearest_neighbours(queries, stored.split(batch), k)
    exact = all_pairs(queries, stored).sort(dim=1, stable=True)
    assert torch.equal(found.indices, exact.indices[:, :k])
    torch.testing.assert_close(found.distances, exact.values[:, :k].float(), rtol=1e-6, atol=0)


def test_copies_are_found_at_no_distance_and_the_first_of_them_first():
    stored = torch.cat((100 * drawn(60, 300) + 20,) * 3)
    found = nearest_neighbours(stored[:60], stored.split(45), 3)
    assert torch.equal(found.indices, torch.arange(60)[:, None] + torch.tensor([0, 60, 120]))
    assert torch.equal(found.distances, torch.zeros(60, 3))


def test_what_is_nearly_a_copy_is_found_and_its_distance_exact():
    stored = 10 * drawn(60, 300) + 20
    moved = stored.clone()
    moved[:, 7] += 0.25
    found = nearest_neighbours(moved, stored, 1)
    assert torch.equal(found.indices[:, 0], torch.arange(60))
    torch.testing.assert_close(
        found.distances[:, 0], all_pairs(moved, stored).diag().float(), rtol=1e-5, atol=0
    )


def test_fewer_than_asked_for():
    with pytest.raises(UsageError, match="5 nearest images were asked for, there are 4"):
        nearest_neighbours(QUERIES, STORED[:4], 5)
