"""The forward process q and its posterior (arXiv 2006.11239, section 2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffcli.diffusion.build import GaussianDiffusion


@dataclass(frozen=True, kw_only=True, eq=False)
class Gaussian:
    """A diagonal Gaussian over images: mean [N, C, H, W], variance and log_variance [N, 1, 1, 1]."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor


def q_mean_variance(diffusion: GaussianDiffusion, x_start: Tensor, t: Tensor) -> Gaussian:
    """q(x_t | x_start) for x_start [N, C, H, W] in [-1, 1] and t int64 [N] in 0..n-1."""
    schedule = diffusion.schedule
    # arXiv 2006.11239, equation 4
    return Gaussian(
        mean=schedule.sqrt_alpha_bar.at(t, x_start) * x_start,
        variance=schedule.one_minus_alpha_bar.at(t, x_start),
        log_variance=schedule.log_one_minus_alpha_bar.at(t, x_start),
    )


def q_sample(diffusion: GaussianDiffusion, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_t [N, C, H, W] from x_start in [-1, 1] and normal noise, both of that shape, at t int64 [N]."""
    schedule = diffusion.schedule
    # arXiv 2006.11239, equation 4
    return (
        schedule.sqrt_alpha_bar.at(t, x_start) * x_start
        + schedule.sqrt_one_minus_alpha_bar.at(t, x_start) * noise
    )


def q_posterior(diffusion: GaussianDiffusion, x_start: Tensor, x_t: Tensor, t: Tensor) -> Gaussian:
    """q(x_{t-1} | x_t, x_start) for images [N, C, H, W], t int64 [N]; variance 0 at t = 0, its log finite."""
    schedule = diffusion.schedule
    # arXiv 2006.11239, equations 6 and 7
    mean = (
        schedule.posterior_weight_of_x_start.at(t, x_t) * x_start
        + schedule.posterior_weight_of_x_t.at(t, x_t) * x_t
    )
    return Gaussian(
        mean=mean,
        variance=schedule.posterior_variance.at(t, x_t),
        log_variance=schedule.posterior_log_variance.at(t, x_t),
    )
