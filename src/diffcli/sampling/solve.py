"""The way from noise to images along a chain, one network call per step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcli.config.sections import SolverName
from diffcli.diffusion.build import GaussianDiffusion
from diffcli.diffusion.reverse import Denoiser, NoiseAt, p_mean_variance
from diffcli.sampling.ancestral import ancestral_step
from diffcli.sampling.ddim import ddim_step
from diffcli.sampling.guidance import GradientAt, guided


@dataclass(frozen=True, kw_only=True)
class SolverSettings:
    """Which solver; eta in [0, 1] is the noise of DDIM; clip keeps every predicted x_start in [-1, 1].

    gradient_at: where a classifier leads the images, which may take x_start out of [-1, 1]; None without one.
    """

    solver: SolverName
    eta: float
    clip: bool
    gradient_at: GradientAt | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class SolverStep:
    """After internal step n-1..0: x, one step less noisy, and the x_start predicted there, [N, C, H, W]."""

    step: int
    x: Tensor
    x_start: Tensor


@torch.no_grad()
def solver_step(
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    x_t: Tensor,
    step: int,
    *,
    noise_at: NoiseAt,
    settings: SolverSettings,
) -> SolverStep:
    """One step from x_t [N, C, H, W] at an internal step; noise_at is asked only for noise that is used."""
    # 1. what the network sees in x_t
    t = torch.full((x_t.shape[0],), step, device=x_t.device)
    model_output = denoiser(x_t, diffusion.model_timesteps(t))
    # 2. what that says about x_start and x_{t-1}
    reverse = p_mean_variance(diffusion, model_output, x_t, t, clip=settings.clip)
    if settings.gradient_at is not None:
        reverse = guided(diffusion, settings.solver, reverse, x_t, t, settings.gradient_at(x_t, t))
    # 3. the step to x_{t-1}
    noise = noise_at(step) if _uses_noise(settings, step) else None
    if settings.solver == "ancestral":
        x = ancestral_step(reverse, noise)
    else:
        x = ddim_step(diffusion, x_t, reverse.x_start, step, eta=settings.eta, noise=noise)
    return SolverStep(step=step, x=x, x_start=reverse.x_start)


def solve(
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    x: Tensor,
    noise_at: NoiseAt,
    settings: SolverSettings,
) -> Iterator[SolverStep]:
    """Every step of the chain from x = x_T, standard normal [N, C, H, W]; the last one's x is the sample."""
    for step in reversed(range(diffusion.steps)):
        taken = solver_step(denoiser, diffusion, x, step, noise_at=noise_at, settings=settings)
        x = taken.x
        yield taken


def _uses_noise(settings: SolverSettings, step: int) -> bool:
    """Whether the noise of a step is multiplied by anything but 0."""
    return step > 0 and (settings.solver == "ancestral" or settings.eta > 0)
