"""Every array of golden/metrics.npz and every number of golden/metrics.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from diffcli.evaluation import distances
from diffcli.evaluation.distances import half_distances, squared_distances
from diffcli.evaluation.frechet import frechet_distance, frechet_distance_of_features
from diffcli.evaluation.inception_score import InceptionScore
from diffcli.evaluation.manifold import manifold_radii, precision_recall
from diffcli.evaluation.moments import moments_of
from diffcli.evaluation.nearest import nearest_neighbours

GOLDEN = Path(__file__).parents[1] / "golden"
FACTS = json.loads((GOLDEN / "metrics.json").read_text())["results"]
ARRAYS = {key: torch.from_numpy(array) for key, array in np.load(GOLDEN / "metrics.npz").items()}
REFERENCE, SAMPLES = ARRAYS["features/ref"], ARRAYS["features/sample"]
ARITHMETICS = {"float32": squared_distances, "float16": half_distances}
NAMES = {"float32": "float32", "float16": "float16_like_reference"}
# what was written into the realism score's denominator
EPSILON = 1e-5


def first_seven_channels(features):
    """NHWC, as the published statistics have them."""
    return features[..., :7].flatten(1)


def assert_close(found, golden, rtol):
    torch.testing.assert_close(found, golden, rtol=rtol, atol=0, check_dtype=False)


def numbers_within(value, path=""):
    """The dotted names of all numbers of the JSON file."""
    if isinstance(value, dict):
        return {name for key, inner in value.items() for name in numbers_within(inner, f"{path}.{key}")}
    return {path[1:]} if isinstance(value, int | float) and not isinstance(value, bool) else set()


def test_every_array_and_every_number_belongs_to_a_test_below():
    per_arithmetic = {
        "radii_ref",
        "radii_sample",
        "sample_in_ref_manifold",
        "ref_in_sample_manifold",
        "max_realism_score",
        "nearest_ref_index",
    }
    assert set(ARRAYS) == {
        "features/ref",
        "features/sample",
        "fid/mu_ref",
        "fid/sigma_ref",
        "fid/mu_sample",
        "fid/sigma_sample",
        "sfid/spatial_ref_nhwc",
        "sfid/spatial_sample_nhwc",
        "sfid/flattened_ref_first_row",
        "inception/probs",
        *(f"pr/{name}/{array}" for name in NAMES.values() for array in per_arithmetic),
    }
    shares = {
        "precision",
        "recall",
        "evaluate_fraction_samples_in_ref_manifold",
        "with_row_batch_64_col_batch_50.precision",
        "with_row_batch_64_col_batch_50.recall",
    }
    assert numbers_within(FACTS) == {
        "feature_seed",
        "margin",
        "fid",
        "fid_reversed_arguments",
        "fid_self",
        "fid_rank_deficient_first_half_dim_samples_vs_ref",
        "sfid",
        *(f"inception_score.{split}" for split in (100, 500, 1000, 1234, 5000)),
        *(f"precision_recall.{name}.{share}" for name in NAMES.values() for share in shares),
        "precision_recall.min_relative_margin_float64.precision",
        "precision_recall.min_relative_margin_float64.recall",
    }


@pytest.mark.parametrize(("name", "features"), [("ref", REFERENCE), ("sample", SAMPLES)])
def test_moments(name, features):
    moments = moments_of(features)
    # the golden mean was rounded to single precision
    torch.testing.assert_close(moments.mean.float(), ARRAYS[f"fid/mu_{name}"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(moments.covariance, ARRAYS[f"fid/sigma_{name}"], rtol=1e-12, atol=1e-13)


def test_frechet_distance():
    reference, samples = moments_of(REFERENCE), moments_of(SAMPLES)
    assert frechet_distance(samples, reference) == pytest.approx(FACTS["fid"], rel=1e-5)
    assert frechet_distance(reference, samples) == pytest.approx(FACTS["fid_reversed_arguments"], rel=1e-5)
    assert frechet_distance(reference, reference) == pytest.approx(FACTS["fid_self"], abs=1e-9)
    assert frechet_distance_of_features(SAMPLES, REFERENCE) == pytest.approx(FACTS["fid"], rel=1e-5)


def test_frechet_distance_of_fewer_rows_than_dimensions():
    few = SAMPLES[: SAMPLES.shape[1] // 2]
    golden = FACTS["fid_rank_deficient_first_half_dim_samples_vs_ref"]
    assert frechet_distance(moments_of(few), moments_of(REFERENCE)) == pytest.approx(golden, rel=1e-3)
    assert frechet_distance(moments_of(REFERENCE), moments_of(few)) == pytest.approx(golden, rel=1e-3)
    assert frechet_distance_of_features(few, REFERENCE) == pytest.approx(golden, rel=1e-3)


def test_frechet_distance_of_spatial_features():
    reference = first_seven_channels(ARRAYS["sfid/spatial_ref_nhwc"])
    samples = first_seven_channels(ARRAYS["sfid/spatial_sample_nhwc"])
    assert torch.equal(reference[0], ARRAYS["sfid/flattened_ref_first_row"])
    assert frechet_distance(moments_of(samples), moments_of(reference)) == pytest.approx(
        FACTS["sfid"], rel=1e-5
    )


@pytest.mark.parametrize("split", [100, 500, 1000, 1234, 5000])
def test_inception_score(split):
    score = InceptionScore(split)
    score.add(ARRAYS["inception/probs"])
    assert score.score().mean == pytest.approx(FACTS["inception_score"][str(split)], rel=1e-5)


@pytest.mark.parametrize("arithmetic", ["float32", "float16"])
def test_radii(arithmetic):
    # half has its golden numbers to the last bit, as both add up in single precision
    rtol = 5e-6 if arithmetic == "float32" else 0
    for name, features in (("ref", REFERENCE), ("sample", SAMPLES)):
        golden = ARRAYS[f"pr/{NAMES[arithmetic]}/radii_{name}"]
        assert_close(manifold_radii(features, 3, arithmetic), golden[:, 0], rtol)


@pytest.mark.parametrize("arithmetic", ["float32", "float16"])
@pytest.mark.parametrize("rows_at_once", [2048, 64])
def test_precision_and_recall(arithmetic, rows_at_once, monkeypatch):
    monkeypatch.setattr(distances, "_ROWS_AT_ONCE", rows_at_once)
    golden = FACTS["precision_recall"][NAMES[arithmetic]]
    found = precision_recall(REFERENCE, SAMPLES, 3, arithmetic)
    assert found.precision == golden["precision"] == golden["evaluate_fraction_samples_in_ref_manifold"]
    assert found.recall == golden["recall"]
    assert golden["with_row_batch_64_col_batch_50"] == {
        "precision": found.precision,
        "recall": found.recall,
    }


@pytest.mark.parametrize("arithmetic", ["float32", "float16"])
def test_who_lies_in_whose_neighbourhood(arithmetic):
    golden = f"pr/{NAMES[arithmetic]}"
    between = ARITHMETICS[arithmetic](REFERENCE, SAMPLES)
    reference_radii = manifold_radii(REFERENCE, 3, arithmetic)[:, None]
    sample_radii = manifold_radii(SAMPLES, 3, arithmetic)
    assert torch.equal(
        (between <= reference_radii).any(dim=0).int(), ARRAYS[f"{golden}/sample_in_ref_manifold"]
    )
    assert torch.equal((between <= sample_radii).any(dim=1).int(), ARRAYS[f"{golden}/ref_in_sample_manifold"])
    # arXiv 1904.06991, equation 3, over all balls
    realism = (reference_radii / (between + EPSILON)).amax(dim=0)
    assert_close(realism, ARRAYS[f"{golden}/max_realism_score"], rtol=5e-6)
    assert torch.equal(between.argmin(dim=0).int(), ARRAYS[f"{golden}/nearest_ref_index"])


def test_the_nearest_reference_image_of_each_sample():
    found = nearest_neighbours(SAMPLES, REFERENCE, 1)
    assert torch.equal(found.indices[:, 0].int(), ARRAYS["pr/float32/nearest_ref_index"])


def test_no_distance_is_as_close_to_a_radius_as_rounding_would_move_it():
    between = squared_distances(REFERENCE, SAMPLES).double()
    from_reference = (between - manifold_radii(REFERENCE, 3)[:, None]).abs().min()
    from_samples = (between - manifold_radii(SAMPLES, 3)).abs().min()
    margin = float(min(from_reference, from_samples) / between.mean())
    assert margin == pytest.approx(FACTS["margin"], rel=5e-3)
    margins = FACTS["precision_recall"]["min_relative_margin_float64"]
    assert min(margins.values()) >= margin > 5e-5
    assert FACTS["feature_seed"] >= 0


def test_what_half_cannot_hold_is_measured_in_single_precision():
    assert FACTS["precision_recall"]["features_times_100_radii_use_float32_fallback"]
    large = 100 * REFERENCE
    assert not half_distances(large, -large).isfinite().all()
    assert torch.equal(manifold_radii(large, 3, "float16"), manifold_radii(large, 3, "float32"))
    # a set of which only the distances of some pairs overflow is measured in one precision throughout
    mixed = torch.cat((REFERENCE, large[:1]))
    assert torch.equal(manifold_radii(mixed, 3, "float16"), manifold_radii(mixed, 3, "float32"))
