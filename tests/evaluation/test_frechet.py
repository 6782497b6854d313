"""Closed forms and symmetries of the Frechet distance."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from diffcli.errors import UsageError
from diffcli.evaluation.frechet import (
    FrechetReference,
    frechet_distance,
    frechet_distance_of_features,
)
from diffcli.evaluation.moments import Moments, moments_of


def gaussian(mean, covariance):
    return Moments(
        count=0,
        mean=torch.as_tensor(mean, dtype=torch.float64),
        covariance=torch.as_tensor(covariance, dtype=torch.float64),
    )


def drawn(rows, dimensions, seed):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimensions, dimensions, generator=generator)
    return torch.randn(rows, dimensions, generator=generator) @ mixing


VARIANCES = st.lists(
    st.tuples(st.floats(0, 1e3), st.floats(0, 1e3), st.floats(-10, 10)), min_size=1, max_size=6
)


@given(VARIANCES)
def test_independent_gaussians_have_a_closed_form(entries):
    first, second, shift = torch.tensor(entries, dtype=torch.float64).T
    found = frechet_distance(gaussian(torch.zeros_like(shift), first.diag()), gaussian(shift, second.diag()))
    # arXiv 1706.08500, equation 6, where both covariances are diagonal
    exact = shift.square().sum() + (first.sqrt() - second.sqrt()).square().sum()
    # where rounding moves an eigenvalue by 1e-16 of the largest, it moves the root by 1e-8
    largest = float(first.max() + second.max())
    assert found == pytest.approx(float(exact), rel=1e-9, abs=1e-6 * largest + 1e-12)


def test_one_covariance_turned_and_scaled_has_a_closed_form():
    covariance = moments_of(drawn(200, 9, seed=1)).covariance
    found = frechet_distance(gaussian(torch.zeros(9), covariance), gaussian(torch.zeros(9), 4 * covariance))
    # (S 4S)^(1/2) = 2S
    assert found == pytest.approx(float(covariance.trace()), rel=1e-12)


def test_it_is_what_a_matrix_root_gives():
    first, second = moments_of(drawn(300, 20, seed=1)), moments_of(drawn(300, 20, seed=2) + 0.5)
    root = sqrtm((first.covariance @ second.covariance).numpy()).real
    exact = (
        (first.mean - second.mean).square().sum()
        + first.covariance.trace()
        + second.covariance.trace()
        - 2 * root.trace()
    )
    assert frechet_distance(first, second) == pytest.approx(float(exact), rel=1e-10)


@pytest.mark.parametrize("rows", [10, 300])
def test_it_is_symmetric_and_nothing_for_equals(rows):
    first, second = moments_of(drawn(rows, 20, seed=1)), moments_of(drawn(300, 20, seed=2))
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-6)
    scale = float(first.covariance.trace())
    assert 0 <= frechet_distance(first, first) < 1e-6 * scale
    assert frechet_distance(first, second) > 1


def test_turning_both_changes_nothing():
    first, second = drawn(300, 12, seed=1), drawn(300, 12, seed=2)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(3))).Q
    assert frechet_distance(moments_of(first @ turn), moments_of(second @ turn)) == pytest.approx(
        frechet_distance(moments_of(first), moments_of(second)), rel=1e-5
    )


@pytest.mark.parametrize(("rows", "others"), [(5, 5), (5, 300), (300, 5), (20, 21), (300, 400), (2, 2)])
def test_features_give_the_same_with_and_without_covariances(rows, others):
    first, second = drawn(rows, 20, seed=1), drawn(others, 20, seed=2) + 1
    assert frechet_distance_of_features(first, second) == pytest.approx(
        frechet_distance(moments_of(first), moments_of(second)), rel=1e-6
    )


def test_of_features_a_set_is_at_no_distance_from_itself():
    features = drawn(30, 100, seed=1)
    assert 0 <= frechet_distance_of_features(features, features) < 1e-9


def test_images_that_are_all_the_same_have_a_distance():
    first = moments_of(torch.zeros(10, 3))
    second = moments_of(torch.ones(10, 3))
    assert frechet_distance(first, second) == 3
    assert frechet_distance_of_features(torch.zeros(10, 3), torch.ones(10, 3)) == 3


def test_a_reference_is_good_for_many():
    reference = moments_of(drawn(300, 12, seed=1))
    others = [moments_of(drawn(300, 12, seed=seed)) for seed in (2, 3)]
    factored = FrechetReference(reference)
    assert [factored.distance(other) for other in others] == [
        frechet_distance(reference, other) for other in others
    ]


def test_features_of_two_networks_are_refused():
    with pytest.raises(UsageError, match="3 and 4 dimensions"):
        frechet_distance(moments_of(torch.eye(4)), moments_of(torch.eye(3)))


def test_one_image_has_no_covariance():
    with pytest.raises(UsageError, match="there are 1 and 4"):
        frechet_distance_of_features(torch.eye(4)[:1], torch.eye(4))
