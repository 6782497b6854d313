"""Denoising diffusion implicit models (arXiv 2010.02502).

All images are [N, C, H, W]; `step` is the internal timestep, 0..n-1, of the whole batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffcli.diffusion.build import GaussianDiffusion
from diffcli.diffusion.prediction import eps_from_x_start


def ddim_sigma(diffusion: GaussianDiffusion, step: int, eta: float) -> float:
    """The standard deviation of a step's noise, 0 at step 0; eta 0: none, eta 1: as ancestral sampling."""
    alpha_bar = float(diffusion.schedule.alpha_bar.values[step])
    alpha_bar_prev = float(diffusion.schedule.alpha_bar_prev.values[step])
    # arXiv 2010.02502, equation 16
    return eta * math.sqrt((1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev))


def ddim_step(
    diffusion: GaussianDiffusion,
    x_t: Tensor,
    x_start: Tensor,
    step: int,
    *,
    eta: float,
    noise: Tensor | None,
) -> Tensor:
    """x_{t-1} from x_t and the x_start predicted there; noise: standard normal, None where sigma is 0."""
    alpha_bar_prev = float(diffusion.schedule.alpha_bar_prev.values[step])
    sigma = ddim_sigma(diffusion, step, eta)
    # eps of the clipped x_start, so that both point to one image
    eps = eps_from_x_start(diffusion, x_t, _timesteps(x_t, step), x_start)
    # rounding can take the difference below 0 where one step crosses nearly the whole chain
    direction = math.sqrt(max(0.0, 1 - alpha_bar_prev - sigma**2))
    # arXiv 2010.02502, equation 12
    mean = math.sqrt(alpha_bar_prev) * x_start + direction * eps
    return mean if noise is None else mean + sigma * noise


def ddim_encoding_step(diffusion: GaussianDiffusion, x_t: Tensor, x_start: Tensor, step: int) -> Tensor:
    """x_{t+1} from x_t and the x_start predicted at it: the step of eta 0, turned round."""
    alpha_bar_next = float(diffusion.schedule.alpha_bar_next.values[step])
    eps = eps_from_x_start(diffusion, x_t, _timesteps(x_t, step), x_start)
    # arXiv 2010.02502, equation 13, with the step turned round
    return math.sqrt(alpha_bar_next) * x_start + math.sqrt(1 - alpha_bar_next) * eps


def _timesteps(x_t: Tensor, step: int) -> Tensor:
    return torch.full((x_t.shape[0],), step, device=x_t.device)
