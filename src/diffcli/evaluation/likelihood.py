"""The variational bound on the likelihood of a set of images, bits/dim (arXiv 2006.11239, equation 5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from diffcli.diffusion.build import GaussianDiffusion
from diffcli.diffusion.likelihood import BitsPerDim, LikelihoodStep, LikelihoodTerms, bits_per_dim
from diffcli.diffusion.reverse import NoiseAt
from diffcli.randomness.streams import Stream, normal
from diffcli.records.evaluations import Likelihood, LikelihoodCurve


def likelihood_noise(
    diffusion: GaussianDiffusion, seed: int, images: Tensor, shape: Sequence[int]
) -> NoiseAt:
    """The noise of images, int64 [N] indices into their dataset: float32 [N, *shape] at an internal step.

    It belongs to the original timestep, so that a respaced chain sees the noise of the full one.
    """

    def noise_at(step: int) -> Tensor:
        timestep = int(diffusion.timestep_map[step])
        return normal(seed, Stream.LIKELIHOOD_NOISE, images, shape, step=timestep)

    return noise_at


def exact_bits_per_dim(
    diffusion: GaussianDiffusion, x_start: Tensor, steps: Iterable[LikelihoodStep]
) -> BitsPerDim:
    """The bound on x_start [N, C, H, W] in [-1, 1], its terms added up in float64 on the CPU.

    steps: all that `likelihood_steps` gives.
    """
    # moved before it is widened: MPS holds no float64
    return bits_per_dim(diffusion, x_start.cpu().double(), map(_on_host, steps))


def mean_likelihood(diffusion: GaussianDiffusion, batches: Iterable[BitsPerDim]) -> Likelihood:
    """The means over the images of all batches, of which each gives its `exact_bits_per_dim`."""
    totals: list[Tensor] = []
    priors: list[Tensor] = []
    sums = torch.zeros(3, diffusion.steps, dtype=torch.float64)
    for batch in batches:
        totals.append(batch.total)
        priors.append(batch.prior)
        terms = batch.terms
        sums += torch.stack((terms.vb, terms.x_start_mse, terms.eps_mse)).sum(dim=1)
    total, prior = torch.cat(totals), torch.cat(priors)
    vb, x_start_mse, eps_mse = (tuple(row) for row in (sums / len(total)).tolist())
    return Likelihood(
        images=len(total),
        bits_per_dim=float(total.mean()),
        standard_error=standard_error(total),
        prior_bits_per_dim=float(prior.mean()),
        vb_bits_per_dim=math.fsum(vb),
        curve=LikelihoodCurve(
            timesteps=tuple(diffusion.timestep_map.tolist()),
            vb_bits_per_dim=vb,
            x_start_mse=x_start_mse,
            eps_mse=eps_mse,
        ),
    )


def standard_error(values: Tensor) -> float | None:
    """The standard error of the mean of float64 [N], from the unbiased variance; None for a single value."""
    if len(values) < 2:
        return None
    return float(values.std(correction=1)) / math.sqrt(len(values))


def _on_host(step: LikelihoodStep) -> LikelihoodStep:
    terms = step.terms
    return LikelihoodStep(
        step=step.step,
        terms=LikelihoodTerms(
            vb=terms.vb.cpu().double(),
            x_start_mse=terms.x_start_mse.cpu().double(),
            eps_mse=terms.eps_mse.cpu().double(),
        ),
    )
