"""Every table of golden/schedules, and what the noise schedule refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcli.config.sections import DiffusionConfig
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.schedules import NoiseSchedule, cosine_betas, linear_betas, named_betas
from diffcli.errors import UsageError

GOLDEN = Path(__file__).parents[1] / "golden"
FACTS = json.loads((GOLDEN / "schedules.json").read_text())
ARRAYS = dict(np.load(GOLDEN / "schedules.npz"))

# the recorded names of our tables
TABLES = {
    "alphas_cumprod": "alpha_bar",
    "alphas_cumprod_prev": "alpha_bar_prev",
    "alphas_cumprod_next": "alpha_bar_next",
    "sqrt_alphas_cumprod": "sqrt_alpha_bar",
    "sqrt_one_minus_alphas_cumprod": "sqrt_one_minus_alpha_bar",
    "log_one_minus_alphas_cumprod": "log_one_minus_alpha_bar",
    "sqrt_recip_alphas_cumprod": "sqrt_recip_alpha_bar",
    "sqrt_recipm1_alphas_cumprod": "sqrt_recipm1_alpha_bar",
    "posterior_variance": "posterior_variance",
    "posterior_log_variance_clipped": "posterior_log_variance",
    "posterior_mean_coef1": "posterior_weight_of_x_start",
    "posterior_mean_coef2": "posterior_weight_of_x_t",
}

# recorded inputs to the published constructor, as betas
BAD_BETAS = {
    "betas:contains_zero": torch.tensor([0.1, 0.0, 0.2]),
    "betas:above_one": torch.tensor([0.1, 1.1]),
    "betas:two_dim": torch.full((2, 2), 0.1),
    "betas:exactly_one_ok": torch.tensor([0.1, 1.0]),
    "betas:single_beta": torch.tensor([0.1]),
}


def test_every_recorded_table_is_compared():
    assert set(FACTS["arrays"]) == {"betas", *TABLES}
    compared = 0
    for key, case in FACTS["cases"].items():
        kept = torch.from_numpy(ARRAYS[f"{key}/index"])
        betas = named_betas(case["schedule"], case["T"])
        np.testing.assert_allclose(betas[kept], ARRAYS[f"{key}/betas"], rtol=0, atol=1e-12)
        compared += 2
        if "constructor_raises" in case:
            with pytest.raises(UsageError):
                NoiseSchedule(betas)
            continue
        schedule = NoiseSchedule(betas)
        for recorded, ours in TABLES.items():
            values = getattr(schedule, ours).values
            assert values.dtype == torch.float64
            np.testing.assert_allclose(
                values[kept], ARRAYS[f"{key}/{recorded}"], rtol=1e-9, err_msg=f"{key}/{recorded}"
            )
            compared += 1
    assert compared == len(ARRAYS)


@pytest.mark.parametrize("key", FACTS["cases"])
def test_sums_and_ends(key):
    case = FACTS["cases"][key]
    betas = named_betas(case["schedule"], case["T"])
    assert float(betas.sum()) == pytest.approx(case["sum_betas"], rel=1e-12)
    assert float(betas[0]) == pytest.approx(case["first_beta"], rel=1e-10)
    assert float(betas[-1]) == pytest.approx(case["last_beta"], rel=1e-12)
    if "num_betas_at_max_0.999" in case:
        assert int((betas == 0.999).sum()) == case["num_betas_at_max_0.999"]
        last = NoiseSchedule(betas).alpha_bar.values[-1]
        assert float(last) == pytest.approx(case["last_alphas_cumprod"], rel=1e-9)


@pytest.mark.parametrize("key", FACTS["errors"])
def test_refusals(key):
    def build():
        if key in BAD_BETAS:
            return NoiseSchedule(BAD_BETAS[key].double())
        if key.startswith("linear_T"):
            return NoiseSchedule(linear_betas(int(key.removeprefix("linear_T"))))
        return NoiseSchedule(named_betas(key, 100))

    # on purpose: a chain of one step works here
    if FACTS["errors"][key] is None or key == "betas:single_beta":
        build()
    else:
        with pytest.raises(UsageError):
            build()


@pytest.mark.parametrize("betas", [[], [0.1, float("nan")], [-0.1], [float("inf")]])
def test_betas_that_are_no_variances_are_refused(betas):
    with pytest.raises(UsageError):
        NoiseSchedule(torch.tensor(betas, dtype=torch.float64))


def test_a_chain_that_is_too_short_is_told_in_the_spelling_of_the_configuration():
    with pytest.raises(UsageError, match=r"diffusion.steps = 10") as caught:
        build_diffusion(DiffusionConfig(steps=10, schedule="linear"))
    assert "20" in caught.value.remedy


def test_a_misspelled_schedule_is_answered_with_the_near_one():
    with pytest.raises(UsageError, match="did you mean cosine"):
        named_betas("Cosin", 10)


def test_a_chain_of_one_step_is_finite():
    schedule = NoiseSchedule(torch.tensor([0.3], dtype=torch.float64))
    for name in [*TABLES.values(), "log_beta", "large_variance", "log_large_variance"]:
        assert torch.isfinite(getattr(schedule, name).values).all(), name
    assert schedule.posterior_log_variance.values.exp() == pytest.approx(0.3)


@given(st.integers(1, 300))
def test_cosine_suits_any_length(steps):
    schedule = NoiseSchedule(cosine_betas(steps))
    assert schedule.steps == steps
    assert (schedule.alpha_bar.values.diff() < 0).all()
