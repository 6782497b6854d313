"""The variational bound on the likelihood of a set of images, bits/dim (arXiv 2006.11239, equation 5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcli.diffusion.build import GaussianDiffusion
from diffcli.diffusion.likelihood import (
    BitsPerDim,
    LikelihoodStep,
    LikelihoodTerms,
    NoiseOf,
    bits_per_dim,
)
from diffcli.randomness.streams import Stream, normal
from diffcli.records.evaluations import Likelihood, LikelihoodCurve


def likelihood_noise(
    diffusion: GaussianDiffusion, seed: int, images: Tensor, shape: Sequence[int]
) -> NoiseOf:
    """The noise of images, int64 [N] indices into their dataset: float32 [N, *shape] at internal steps.

    It belongs to seed, image and original timestep, so that whoever sees a timestep sees its noise.
    """
    timesteps = diffusion.timestep_map.to(images.device)

    def noise_of(t: Tensor) -> Tensor:
        return normal(seed, Stream.LIKELIHOOD_NOISE, images, shape, step=timesteps[t])

    return noise_of


def on_host(step: LikelihoodStep) -> LikelihoodStep:
    """The same in float64 on the CPU, where terms are added up."""
    terms = step.terms
    # moved before it is widened: MPS holds no float64
    return LikelihoodStep(
        column=step.column,
        terms=LikelihoodTerms(
            vb=terms.vb.cpu().double(),
            x_start_mse=terms.x_start_mse.cpu().double(),
            eps_mse=terms.eps_mse.cpu().double(),
        ),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchBounds:
    """The bound on a batch of N images, and what it adds to the curve of a chain of n steps; all float64.

    vb, prior: [N], bits/dim; images: [n], how many of the images saw each step; sums: [3, n], over these, of
    the term of the bound and of the mean squared errors of x_start and eps.
    """

    vb: Tensor
    prior: Tensor
    images: Tensor
    sums: Tensor


def batch_bounds(
    diffusion: GaussianDiffusion,
    x_start: Tensor,
    at: Tensor,
    steps: Iterable[LikelihoodStep],
    weights: Tensor,
) -> BatchBounds:
    """The bound on x_start [N, C, H, W] in [-1, 1], from all that `likelihood_steps` gives at int64 [N, K].

    steps: on the host; weights: [K], how many steps of the chain each column stands for.
    """
    bound: BitsPerDim = bits_per_dim(diffusion, x_start.cpu().double(), steps, weights)
    terms, seen = bound.terms, at.flatten()
    rows = (torch.ones_like(terms.vb), terms.vb, terms.x_start_mse, terms.eps_mse)
    images, *sums = (torch.bincount(seen, row.flatten(), minlength=diffusion.steps) for row in rows)
    return BatchBounds(vb=bound.vb, prior=bound.prior, images=images, sums=torch.stack(sums))


def mean_likelihood(diffusion: GaussianDiffusion, batches: Iterable[BatchBounds]) -> Likelihood:
    """The means over the images of all batches, added up in the order in which they come."""
    vbs: list[Tensor] = []
    priors: list[Tensor] = []
    images = torch.zeros(diffusion.steps, dtype=torch.float64)
    sums = torch.zeros(3, diffusion.steps, dtype=torch.float64)
    for batch in batches:
        vbs.append(batch.vb)
        priors.append(batch.prior)
        images += batch.images
        sums += batch.sums
    vb, prior = torch.cat(vbs), torch.cat(priors)
    total = vb + prior
    return Likelihood(
        images=len(total),
        bits_per_dim=float(total.mean()),
        standard_error=standard_error(total),
        prior_bits_per_dim=float(prior.mean()),
        vb_bits_per_dim=float(vb.mean()),
        curve=_curve(diffusion, images, sums),
        image_bits_per_dim=tuple(total.tolist()),
    )


def _curve(diffusion: GaussianDiffusion, images: Tensor, sums: Tensor) -> LikelihoodCurve:
    """The means at the steps that any image saw."""
    seen = images > 0
    vb, x_start_mse, eps_mse = (tuple(row) for row in (sums[:, seen] / images[seen]).tolist())
    return LikelihoodCurve(
        timesteps=tuple(diffusion.timestep_map[seen].tolist()),
        vb_bits_per_dim=vb,
        x_start_mse=x_start_mse,
        eps_mse=eps_mse,
        images=tuple(images[seen].long().tolist()),
    )


def standard_error(values: Tensor) -> float | None:
    """The standard error of the mean of float64 [N], from the unbiased variance; None for a single value."""
    if len(values) < 2:
        return None
    return float(values.std(correction=1)) / math.sqrt(len(values))
