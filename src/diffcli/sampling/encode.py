"""The way from images to the noise that DDIM draws them from, one network call per step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from diffcli.diffusion.build import GaussianDiffusion
from diffcli.diffusion.reverse import Denoiser, p_mean_variance
from diffcli.sampling.ddim import ddim_encoding_step
from diffcli.sampling.solve import SolverStep


@torch.no_grad()
def encoding_step(
    denoiser: Denoiser, diffusion: GaussianDiffusion, x_t: Tensor, step: int, *, clip: bool
) -> SolverStep:
    """From x_t [N, C, H, W] at an internal step to x_{t+1}; clip keeps the predicted x_start in [-1, 1]."""
    t = torch.full((x_t.shape[0],), step, device=x_t.device)
    model_output = denoiser(x_t, diffusion.model_timesteps(t))
    x_start = p_mean_variance(diffusion, model_output, x_t, t, clip=clip).x_start
    return SolverStep(step=step, x=ddim_encoding_step(diffusion, x_t, x_start, step), x_start=x_start)


def encode(
    denoiser: Denoiser, diffusion: GaussianDiffusion, x: Tensor, *, clip: bool
) -> Iterator[SolverStep]:
    """Every step of the chain from images x [N, C, H, W] in [-1, 1], upwards; the last one's x is x_T."""
    for step in range(diffusion.steps):
        taken = encoding_step(denoiser, diffusion, x, step, clip=clip)
        x = taken.x
        yield taken
