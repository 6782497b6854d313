"""What a network predicts, turned into one another: eps, x_start and x_prev.

All images are [N, C, H, W], t is int64 [N] in 0..n-1.
"""

from __future__ import annotations

from torch import Tensor

from diffcli.diffusion.build import GaussianDiffusion


def x_start_from_eps(diffusion: GaussianDiffusion, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """The x_start that noise eps would have carried to x_t."""
    schedule = diffusion.schedule
    # arXiv 2006.11239, equation 15
    return schedule.sqrt_recip_alpha_bar.at(t, x_t) * x_t - schedule.sqrt_recipm1_alpha_bar.at(t, x_t) * eps


def x_start_from_x_prev(diffusion: GaussianDiffusion, x_t: Tensor, t: Tensor, x_prev: Tensor) -> Tensor:
    """The x_start whose posterior mean at x_t is x_prev."""
    schedule = diffusion.schedule
    weight_of_x_start = schedule.posterior_weight_of_x_start.at(t, x_t)
    # arXiv 2006.11239, equation 7, solved for x_start
    return x_prev / weight_of_x_start - schedule.posterior_weight_of_x_t.at(t, x_t) / weight_of_x_start * x_t


def eps_from_x_start(diffusion: GaussianDiffusion, x_t: Tensor, t: Tensor, x_start: Tensor) -> Tensor:
    """The noise that would have carried x_start to x_t."""
    schedule = diffusion.schedule
    # arXiv 2006.11239, equation 15, solved for eps
    noise_part = schedule.sqrt_recip_alpha_bar.at(t, x_t) * x_t - x_start
    return noise_part / schedule.sqrt_recipm1_alpha_bar.at(t, x_t)


def predicted_x_start(diffusion: GaussianDiffusion, x_t: Tensor, t: Tensor, prediction: Tensor) -> Tensor:
    """x_start as the network's prediction implies it."""
    if diffusion.predict == "eps":
        return x_start_from_eps(diffusion, x_t, t, prediction)
    if diffusion.predict == "x_prev":
        return x_start_from_x_prev(diffusion, x_t, t, prediction)
    return prediction
