"""Precision, recall, density and coverage against all pairs at once, and in cases with a known answer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcli.errors import UsageError
from diffcli.evaluation.manifold import density_coverage, manifold_radii, precision_recall

# term by term, not by products
DIFFERENCES = "donot_use_mm_for_euclid_dist"


def drawn(rows, dimensions=4, seed=0):
    return torch.randn(rows, dimensions, generator=torch.Generator().manual_seed(seed))


def all_pairs(rows, columns):
    return torch.cdist(rows.double(), columns.double(), compute_mode=DIFFERENCES).square().float()


def radii(features, k):
    return all_pairs(features, features).sort(dim=1).values[:, k]


def shares(reference, samples, k):
    """Precision and recall without blocks."""
    between = all_pairs(reference, samples)
    inside_reference = between <= radii(reference, k)[:, None]
    inside_samples = between <= radii(samples, k)
    return float(inside_reference.any(dim=0).double().mean()), float(
        inside_samples.any(dim=1).double().mean()
    )


# more than a block each, so that rows, columns and corners of blocks all occur
REFERENCE, SAMPLES = drawn(2300), 0.9 * drawn(2100, seed=1) + 0.2


def test_blocks_give_what_all_pairs_give():
    torch.testing.assert_close(manifold_radii(REFERENCE, 3), radii(REFERENCE, 3), rtol=1e-6, atol=0)
    found = precision_recall(REFERENCE, SAMPLES)
    assert (found.precision, found.recall) == pytest.approx(shares(REFERENCE, SAMPLES, 3), abs=1e-9)


def test_blocks_of_density_and_coverage_give_what_all_pairs_give():
    inside = all_pairs(REFERENCE, SAMPLES) <= radii(REFERENCE, 5)[:, None]
    found = density_coverage(REFERENCE, SAMPLES)
    assert found.density == pytest.approx(int(inside.sum()) / (5 * len(SAMPLES)), rel=1e-9)
    assert found.coverage == pytest.approx(float(inside.any(dim=1).double().mean()), rel=1e-9)


@given(st.integers(4, 40), st.integers(4, 40), st.integers(1, 3), st.integers(0, 2**31))
def test_small_sets(rows, columns, k, seed):
    # on a grid, so that distances tie with radii and images repeat
    reference = drawn(rows, 2, seed).mul(2).round()
    samples = drawn(columns, 2, seed + 1).mul(2).round()
    found = precision_recall(reference, samples, k)
    assert (found.precision, found.recall) == pytest.approx(shares(reference, samples, k), abs=1e-12)
    other_way = precision_recall(samples, reference, k)
    assert (other_way.recall, other_way.precision) == (found.precision, found.recall)


def test_points_on_a_line():
    reference = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    # 1-neighbourhoods: [-1, 1], [0, 2], [1, 3], [2, 18]; the surface belongs to them
    samples = torch.tensor([[-1.0], [-1.5], [18.0], [18.5]])
    assert manifold_radii(reference, 1).tolist() == [1, 1, 1, 64]
    found = precision_recall(reference, samples, k=1)
    # of the samples: 0.5 each, so that no image of the reference is reached
    assert (found.precision, found.recall) == (0.5, 0)
    assert density_coverage(reference, samples, k=1).density == 0.5
    assert density_coverage(reference, samples, k=1).coverage == 0.5


def test_a_set_lies_on_its_own_manifold():
    same = precision_recall(SAMPLES, SAMPLES)
    assert (same.precision, same.recall) == (1, 1)
    assert density_coverage(SAMPLES, SAMPLES).coverage == 1
    # each of N balls holds k + 1 of its own set; distances that are equal in single precision hold one more
    assert density_coverage(SAMPLES, SAMPLES, k=5).density == pytest.approx(6 / 5, rel=2e-4)


def test_two_draws_of_one_distribution_have_full_density():
    found = density_coverage(drawn(2000, 3), drawn(2000, 3, seed=1))
    # in expectation 1 for the density, and 1 - 2^-5 for the coverage (arXiv 2002.09797, lemma 2)
    assert found.density == pytest.approx(1, abs=0.05)
    assert found.coverage == pytest.approx(1 - 2**-5, abs=0.02)


def test_sets_far_apart_share_nothing():
    found = precision_recall(REFERENCE, SAMPLES + 100)
    assert (found.precision, found.recall) == (0, 0)
    apart = density_coverage(REFERENCE, SAMPLES + 100)
    assert (apart.density, apart.coverage) == (0, 0)


def test_a_collapsed_set_is_seen_whatever_its_rounding():
    # all samples are one image of the reference, whose balls have then no radius at all
    reference = 100 * drawn(300, 50) + 30
    samples = reference[:1].repeat(300, 1)
    assert torch.equal(manifold_radii(samples, 3), torch.zeros(300))
    found = precision_recall(reference, samples)
    assert (found.precision, found.recall) == (1, 1 / 300)


def test_density_counts_every_neighbourhood():
    reference = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    # 2-neighbourhoods of radius 2, 1, 1, 2: at 1 there are those of 0, 1, 2 and 3
    found = density_coverage(reference, torch.tensor([[1.0], [1.0]]), k=2)
    assert found.density == 2
    assert found.coverage == 1


@pytest.mark.parametrize("measure", [precision_recall, density_coverage])
def test_too_few_images_for_a_neighbourhood(measure):
    with pytest.raises(UsageError, match="need 4 images or more, there are 3"):
        measure(REFERENCE[:3], SAMPLES, k=3)
