"""Mean and covariance of features that come in batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcli.errors import CorruptError, UsageError
from diffcli.evaluation.moments import StreamingMoments, moments_of, moments_of_rows

ROWS = 2500
DIMENSIONS = 5


def drawn(rows=ROWS, dimensions=DIMENSIONS, seed=0):
    return torch.randn(rows, dimensions, generator=torch.Generator().manual_seed(seed))


FEATURES = drawn()
WHOLE = moments_of(FEATURES)


def same_bits(first, second):
    return (
        first.count == second.count
        and torch.equal(first.mean, second.mean)
        and torch.equal(first.covariance, second.covariance)
    )


def test_they_are_numpys():
    assert WHOLE.count == ROWS
    assert WHOLE.dimensions == DIMENSIONS
    exact = FEATURES.double().numpy()
    np.testing.assert_allclose(WHOLE.mean.numpy(), exact.mean(axis=0), rtol=0, atol=1e-15)
    np.testing.assert_allclose(WHOLE.covariance.numpy(), np.cov(exact, rowvar=False), rtol=0, atol=1e-14)


@given(st.lists(st.integers(0, ROWS), max_size=6))
def test_no_cut_into_batches_changes_a_bit(cuts):
    edges = [0, *sorted(cuts), ROWS]
    streaming = StreamingMoments(DIMENSIONS)
    for start, stop in pairwise(edges):
        streaming.add(FEATURES[start:stop])
    assert same_bits(streaming.moments(), WHOLE)


def test_rows_one_by_one():
    streaming = StreamingMoments(DIMENSIONS)
    for row in FEATURES.split(1):
        streaming.add(row)
    assert same_bits(streaming.moments(), WHOLE)


def test_chosen_rows():
    rows = torch.randint(0, ROWS, (3000,), generator=torch.Generator().manual_seed(0))
    assert same_bits(moments_of_rows(FEATURES, rows), moments_of(FEATURES[rows]))


def test_asking_on_the_way_changes_nothing():
    streaming = StreamingMoments(DIMENSIONS)
    for start in range(0, ROWS, 500):
        streaming.add(FEATURES[start : start + 500])
        so_far = streaming.moments()
        assert streaming.count == so_far.count == start + 500
        assert same_bits(so_far, moments_of(FEATURES[: start + 500]))
    kept = streaming.moments()
    streaming.add(FEATURES)
    assert same_bits(kept, WHOLE)


def test_the_caller_may_use_its_batch_again():
    streaming = StreamingMoments(DIMENSIONS)
    batch = FEATURES.clone()
    streaming.add(batch)
    batch.zero_()
    assert same_bits(streaming.moments(), WHOLE)


def test_a_far_away_mean_costs_no_digits():
    # whole numbers, so that the shift itself is exact in single precision
    whole_numbers = (4 * FEATURES).round()
    far = whole_numbers + 2.0**20
    near, shifted = moments_of(whole_numbers), moments_of(far)
    torch.testing.assert_close(shifted.covariance, near.covariance, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(shifted.mean - 2.0**20, near.mean, rtol=0, atol=1e-9)


def test_a_mean_that_drifts_is_followed():
    drifting = FEATURES + torch.linspace(-500, 500, ROWS)[:, None]
    exact = np.cov(drifting.double().numpy(), rowvar=False)
    np.testing.assert_allclose(moments_of(drifting).covariance.numpy(), exact, rtol=1e-12)


def test_a_covariance_is_symmetric():
    covariance = moments_of(drawn(rows=1500, dimensions=70)).covariance
    assert torch.equal(covariance, covariance.T)


@pytest.mark.parametrize("rows", [0, 1])
def test_one_image_has_no_covariance(rows):
    with pytest.raises(UsageError, match=f"needs two images or more, there are {rows}"):
        moments_of(FEATURES[:rows])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_are_told(value):
    spoilt = FEATURES.clone()
    spoilt[1700, 3] = value
    with pytest.raises(CorruptError, match="not finite"):
        moments_of(spoilt)
