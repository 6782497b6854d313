"""Every array of golden/diffusion_math: process, predictions, variances, objectives and likelihood."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from diffcli.config.sections import DiffusionConfig
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.likelihood import (
    approximate_normal_cdf,
    bits_per_dim,
    discretized_gaussian_log_likelihood,
    likelihood_steps,
    normal_kl,
    prior_bits_per_dim,
    vb_term,
)
from diffcli.diffusion.objectives import training_losses
from diffcli.diffusion.prediction import eps_from_x_start, x_start_from_eps, x_start_from_x_prev
from diffcli.diffusion.process import q_mean_variance, q_posterior, q_sample
from diffcli.diffusion.respacing import parse_timesteps
from diffcli.diffusion.reverse import p_mean_variance

GOLDEN = Path(__file__).parents[1] / "golden"
FACTS = json.loads((GOLDEN / "diffusion_math.json").read_text())
ARRAYS = {key: torch.from_numpy(array) for key, array in np.load(GOLDEN / "diffusion_math.npz").items()}

X_START, NOISE = ARRAYS["x0"], ARRAYS["noise"]
MEANS = {"EPSILON": "eps", "START_X": "x_start", "PREVIOUS_X": "x_prev"}
VARIANCES = {
    "LEARNED": "learned",
    "LEARNED_RANGE": "learned_range",
    "FIXED_SMALL": "fixed_small",
    "FIXED_LARGE": "fixed_large",
}
LEARNED = ("LEARNED", "LEARNED_RANGE")
CLIPS = {"clip0": False, "clip1": True}

# golden/README.md, table of tolerances
VALUES = {"atol": 2e-5, "rtol": 2e-5}
UNCLIPPED_X_START = {"atol": 2e-5, "rtol": 1e-4}
# the terms of a KL are of order 1, so single precision gives its value to about 1e-7 at best
BITS = {"atol": 1e-7, "rtol": 2e-4}


def objective_of(variance, loss):
    """The objective a recorded loss type means: with a fixed variance, the mse stands alone."""
    if loss in ("KL", "RESCALED_KL"):
        return {"KL": "vlb_unscaled", "RESCALED_KL": "vlb"}[loss]
    if variance not in LEARNED:
        return "simple"
    return {"MSE": "hybrid_unscaled", "RESCALED_MSE": "hybrid"}[loss]


def diffusion_of(case, mean="EPSILON", variance="FIXED_SMALL", loss="MSE"):
    config = DiffusionConfig(
        steps=case["T"],
        schedule=case["schedule"],
        predict=MEANS[mean],
        variance=VARIANCES[variance],
        objective=objective_of(variance, loss),
    )
    return build_diffusion(
        config, parse_timesteps(case["respacing"], case["T"]) if case["respacing"] else None
    )


def model_output_of(variance):
    return ARRAYS["model_out_learned" if variance in LEARNED else "model_out"]


def assert_equal_to_recorded(key, value, tolerance):
    recorded = ARRAYS[key]
    torch.testing.assert_close(
        torch.broadcast_to(value, recorded.shape), recorded, **tolerance, msg=lambda text: f"{key}: {text}"
    )


def assert_gradient_equals_recorded(key, gradient, floor, rounding):
    """rounding: [N, 1, 1, 1], what the gradient may lose beyond the usual tolerance, as a share of itself."""
    recorded = ARRAYS[key]
    allowed = floor + (BITS["rtol"] + rounding) * recorded.abs()
    assert ((gradient - recorded).abs() <= allowed).all(), key


# what the reference and float64 differ by where the range is narrowest
LARGEST_ROUNDING = 2e-3


def rounding_of_a_narrow_range(diffusion, t):
    """A learned range's gradient is the difference of those of its bounds: they cancel if these are near."""
    if diffusion.variance != "learned_range":
        return torch.zeros(len(t), 1, 1, 1)
    lower = diffusion.schedule.posterior_log_variance.at(t, X_START)
    upper = diffusion.schedule.log_beta.at(t, X_START)
    rounding = torch.finfo(torch.float32).eps * upper.abs() / (upper - lower)
    # only the channels of the variance are interpolated between the bounds
    channels = torch.tensor([0.0, 0, 0, 1, 1, 1]).view(1, 6, 1, 1)
    return rounding.clamp(max=LARGEST_ROUNDING) * channels


def under(prefix):
    return {key for key in ARRAYS if key.startswith(f"{prefix}/")}


def test_every_array_belongs_to_a_test_below():
    shared = {"x0", "noise", "model_out", "model_out_learned"}
    tested = shared.union(*map(under, FACTS["diffusions"]), under("bpd"))
    tested |= under("normal_kl") | under("cdf") | under("discretized")
    # the networks' part of the file, compared by tests/models
    assert ARRAYS.keys() - tested == under("timestep_embedding")
    assert len(ARRAYS) == 951


@pytest.mark.parametrize("name", FACTS["diffusions"])
def test_process_and_predictions(name):
    diffusion = diffusion_of(FACTS["diffusions"][name])
    t, model_out = ARRAYS[f"{name}/t"], ARRAYS["model_out"]
    x_t = q_sample(diffusion, X_START, t, NOISE)
    forward = q_mean_variance(diffusion, X_START, t)
    posterior = q_posterior(diffusion, X_START, x_t, t)
    values = {
        "q_sample": x_t,
        "q_mean_variance/mean": forward.mean,
        "q_mean_variance/variance": forward.variance,
        "q_mean_variance/log_variance": forward.log_variance,
        "q_posterior/mean": posterior.mean,
        "q_posterior/variance": posterior.variance,
        "q_posterior/log_variance_clipped": posterior.log_variance,
    }
    predictions = {
        "predict_xstart_from_eps": x_start_from_eps(diffusion, x_t, t, model_out),
        "predict_xstart_from_xprev": x_start_from_x_prev(diffusion, x_t, t, model_out),
        "predict_eps_from_xstart": eps_from_x_start(diffusion, x_t, t, model_out),
    }
    for key, value in values.items():
        assert_equal_to_recorded(f"{name}/{key}", value, VALUES)
    for key, value in predictions.items():
        assert_equal_to_recorded(f"{name}/{key}", value, UNCLIPPED_X_START)
    assert_equal_to_recorded(f"{name}/prior_bpd", prior_bits_per_dim(diffusion, X_START), BITS)

    later = ("p_mean_variance", "p_mean_variance_denoised_fn", "vb_terms_bpd", "training_losses")
    here = {key for key in under(name) if key.split("/")[1] not in later}
    assert here == {f"{name}/{key}" for key in [*values, *predictions, "t", "prior_bpd"]}


def reverse_values(reverse):
    return {
        "mean": reverse.mean,
        "variance": reverse.variance,
        "log_variance": reverse.log_variance,
        "pred_xstart": reverse.x_start,
    }


@pytest.mark.parametrize("name", FACTS["diffusions"])
def test_reverse_process_and_bound(name):
    t = ARRAYS[f"{name}/t"]
    compared = set()
    for mean, variance, clip in product(MEANS, VARIANCES, CLIPS):
        diffusion = diffusion_of(FACTS["diffusions"][name], mean, variance)
        x_t = q_sample(diffusion, X_START, t, NOISE)
        reverse = p_mean_variance(diffusion, model_output_of(variance), x_t, t, clip=CLIPS[clip])
        for part, value in reverse_values(reverse).items():
            key = f"{name}/p_mean_variance/{mean}/{variance}/{clip}/{part}"
            unclipped = part == "pred_xstart" and clip == "clip0"
            assert_equal_to_recorded(key, value, UNCLIPPED_X_START if unclipped else VALUES)
            compared.add(key)
        key = f"{name}/vb_terms_bpd/{mean}/{variance}/{clip}/output"
        assert_equal_to_recorded(key, vb_term(diffusion, reverse, X_START, x_t, t), BITS)
        compared.add(key)
    assert compared == under(f"{name}/p_mean_variance") | under(f"{name}/vb_terms_bpd")


@pytest.mark.parametrize("name", FACTS["diffusions"])
def test_a_change_to_x_start_comes_before_the_clip(name):
    diffusion = diffusion_of(FACTS["diffusions"][name], "EPSILON", "LEARNED_RANGE")
    t = ARRAYS[f"{name}/t"]
    x_t = q_sample(diffusion, X_START, t, NOISE)
    reverse = p_mean_variance(
        diffusion, ARRAYS["model_out_learned"], x_t, t, clip=True, denoised=lambda x: 0.5 * x + 0.25
    )
    values = reverse_values(reverse)
    for part, value in values.items():
        assert_equal_to_recorded(f"{name}/p_mean_variance_denoised_fn/{part}", value, VALUES)
    assert len(under(f"{name}/p_mean_variance_denoised_fn")) == len(values)


@pytest.mark.parametrize("name", FACTS["diffusions"])
def test_objectives_and_their_gradients(name):
    t = ARRAYS[f"{name}/t"]
    compared = set()
    cases = (
        (m, v, k) for m in MEANS for v in VARIANCES for k in ("MSE", "RESCALED_MSE", "KL", "RESCALED_KL")
    )
    for mean, variance, loss in cases:
        diffusion = diffusion_of(FACTS["diffusions"][name], mean, variance, loss)
        x_t = q_sample(diffusion, X_START, t, NOISE)
        rounding = rounding_of_a_narrow_range(diffusion, t)
        model_output = model_output_of(variance).clone().requires_grad_()
        terms = training_losses(diffusion, model_output, x_start=X_START, x_t=x_t, t=t, noise=NOISE)
        terms.loss.sum().backward()
        prefix = f"{name}/training_losses/{mean}/{variance}/{loss}"
        scale = {"RESCALED_KL": diffusion.steps, "RESCALED_MSE": diffusion.steps / 1000}.get(loss, 1)
        tolerance = BITS | {"atol": BITS["atol"] * scale}
        assert_equal_to_recorded(f"{prefix}/loss", terms.loss, tolerance)
        assert_gradient_equals_recorded(
            f"{prefix}/grad_model_out", model_output.grad, tolerance["atol"], rounding
        )
        compared |= {f"{prefix}/loss", f"{prefix}/grad_model_out"}
        if loss in ("MSE", "RESCALED_MSE"):
            assert_equal_to_recorded(f"{prefix}/mse", terms.mse, VALUES)
            compared.add(f"{prefix}/mse")
            if variance in LEARNED:
                assert_equal_to_recorded(f"{prefix}/vb", terms.vb, BITS)
                compared.add(f"{prefix}/vb")
    assert compared == under(f"{name}/training_losses")


@pytest.mark.parametrize("name", FACTS["bpd"])
def test_bits_per_dim_loop(name):
    case = FACTS["bpd"][name]
    prefix = f"bpd/{name}"
    x_start = X_START[:3]
    table, noise = ARRAYS[f"{prefix}/model_out_table"], ARRAYS[f"{prefix}/noise"]
    combinations = {key.rsplit("/", 1)[0] for key in under(prefix) if key.count("/") > 2}
    for combination in combinations:
        mean, variance, clip = combination.removeprefix(f"{prefix}/").split("/")
        diffusion = diffusion_of(case, mean, variance)
        assert diffusion.steps == case["num_timesteps"]
        calls = []

        def denoiser(_x_t, t, calls=calls, diffusion=diffusion, variance=variance):
            calls.append(t)
            step = int((diffusion.timestep_map == t[0]).nonzero())
            return table[step] if variance in LEARNED else table[step, :, :3]

        steps = likelihood_steps(
            denoiser,
            diffusion,
            x_start,
            torch.arange(diffusion.steps).expand(len(x_start), -1),
            lambda t, n=diffusion.steps: noise[n - 1 - int(t[0])],
            clip=CLIPS[clip],
        )
        result = bits_per_dim(diffusion, x_start, steps, torch.ones(diffusion.steps))
        assert torch.equal(torch.stack(calls), ARRAYS[f"{prefix}/t_seen_by_model"])
        assert_equal_to_recorded(f"{combination}/total_bpd", result.total, BITS)
        assert_equal_to_recorded(f"{combination}/prior_bpd", result.prior, BITS)
        # recorded top step first, ours by internal step
        assert_equal_to_recorded(f"{combination}/vb", result.terms.vb.flip(1), BITS)
        assert_equal_to_recorded(f"{combination}/xstart_mse", result.terms.x_start_mse.flip(1), BITS)
        assert_equal_to_recorded(f"{combination}/mse", result.terms.eps_mse.flip(1), BITS)
    assert len(under(prefix)) == 3 + 5 * len(combinations)


def test_normal_kl():
    mean1, logvar1, mean2, logvar2 = (
        ARRAYS[f"normal_kl/{key}"] for key in ("mean1", "logvar1", "mean2", "logvar2")
    )
    assert_equal_to_recorded("normal_kl/out", normal_kl(mean1, logvar1, mean2, logvar2), BITS)
    zeros = torch.zeros(())
    assert_equal_to_recorded("normal_kl/out_vs_standard", normal_kl(mean1, logvar1, zeros, zeros), BITS)
    assert len(under("normal_kl")) == 6


def test_approximate_normal_cdf():
    assert_equal_to_recorded("cdf/out", approximate_normal_cdf(ARRAYS["cdf/x"]), VALUES)
    assert len(under("cdf")) == 2


def test_discretized_gaussian():
    x, means, log_scales, recorded = (
        ARRAYS[f"discretized/{key}"] for key in ("x", "means", "log_scales", "out")
    )
    out = discretized_gaussian_log_likelihood(x, means, log_scales)
    # golden/README.md, section 3: below -8 single precision leaves no digits to compare
    firm = recorded > -8
    torch.testing.assert_close(out[firm], recorded[firm], atol=2e-4, rtol=0)
    assert (out[~firm] < -7).all()
    assert 0 < firm.sum() < len(recorded) == 720
    assert len(under("discretized")) == 4
