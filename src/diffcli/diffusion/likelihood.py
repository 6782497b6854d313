"""The variational bound on the likelihood, in bits/dim (arXiv 2006.11239, sections 3.1 and 3.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcli.diffusion.build import GaussianDiffusion
from diffcli.diffusion.prediction import eps_from_x_start
from diffcli.diffusion.process import q_mean_variance, q_posterior, q_sample
from diffcli.diffusion.reverse import Denoiser, ReverseStep, p_mean_variance

_NATS_PER_BIT = math.log(2)
# half the distance between two neighbours of the 256 values in [-1, 1]
_HALF_BIN = 1 / 255
_EDGE = 0.999
_LEAST_PROBABILITY = 1e-12

# internal steps int64 [N], one for each image -> standard normal noise of the shape of the images
NoiseOf = Callable[[Tensor], Tensor]


def mean_per_image(values: Tensor) -> Tensor:
    """The mean over everything but the first dimension: [N]."""
    return values.flatten(1).mean(dim=1)


def normal_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N1 || N2) in nats, elementwise over tensors that broadcast."""
    return 0.5 * (
        -1
        + log_variance2
        - log_variance1
        + torch.exp(log_variance1 - log_variance2)
        + (mean1 - mean2) ** 2 * torch.exp(-log_variance2)
    )


def approximate_normal_cdf(x: Tensor) -> Tensor:
    """The standard normal distribution function to about 3e-4, by a tanh (Page, 1977)."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def discretized_gaussian_log_likelihood(x: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """The log probability in nats, elementwise, of the bin of x, one of the 256 values k / 127.5 - 1."""
    precision = torch.exp(-log_scales)
    below_upper_edge = approximate_normal_cdf(precision * (x - means + _HALF_BIN))
    below_lower_edge = approximate_normal_cdf(precision * (x - means - _HALF_BIN))
    # arXiv 2006.11239, equation 13: the outermost bins reach to infinity
    probability = torch.where(
        x < -_EDGE,
        below_upper_edge,
        torch.where(x > _EDGE, 1 - below_lower_edge, below_upper_edge - below_lower_edge),
    )
    return probability.clamp(min=_LEAST_PROBABILITY).log()


def vb_term(
    diffusion: GaussianDiffusion, reverse: ReverseStep, x_start: Tensor, x_t: Tensor, t: Tensor
) -> Tensor:
    """The term of the variational bound at t, bits/dim [N]: L_{t-1}, or the decoder's L_0 where t = 0."""
    posterior = q_posterior(diffusion, x_start, x_t, t)
    # arXiv 2006.11239, equation 5
    kl = normal_kl(posterior.mean, posterior.log_variance, reverse.mean, reverse.log_variance)
    decoder_nll = -discretized_gaussian_log_likelihood(x_start, reverse.mean, 0.5 * reverse.log_variance)
    return torch.where(t == 0, mean_per_image(decoder_nll), mean_per_image(kl)) / _NATS_PER_BIT


def prior_bits_per_dim(diffusion: GaussianDiffusion, x_start: Tensor) -> Tensor:
    """L_T, bits/dim [N]: what the end of the chain still knows of x_start [N, C, H, W] in [-1, 1]."""
    last = torch.full((x_start.shape[0],), diffusion.steps - 1, device=x_start.device)
    end = q_mean_variance(diffusion, x_start, last)
    standard = torch.zeros_like(end.log_variance)
    # arXiv 2006.11239, equation 5
    return mean_per_image(normal_kl(end.mean, end.log_variance, standard, standard)) / _NATS_PER_BIT


@dataclass(frozen=True, kw_only=True, eq=False)
class LikelihoodTerms:
    """One term of the bound, vb in bits/dim, and the mean squared errors of x_start and of eps; each [N]."""

    vb: Tensor
    x_start_mse: Tensor
    eps_mse: Tensor


def likelihood_terms(
    denoiser: Denoiser, diffusion: GaussianDiffusion, x_start: Tensor, t: Tensor, noise: Tensor, *, clip: bool
) -> LikelihoodTerms:
    """The terms of x_start [N, C, H, W] in [-1, 1] at t int64 [N], under normal noise of its shape."""
    x_t = q_sample(diffusion, x_start, t, noise)
    model_output = denoiser(x_t, diffusion.model_timesteps(t))
    reverse = p_mean_variance(diffusion, model_output, x_t, t, clip=clip)
    eps = eps_from_x_start(diffusion, x_t, t, reverse.x_start)
    return LikelihoodTerms(
        vb=vb_term(diffusion, reverse, x_start, x_t, t),
        x_start_mse=mean_per_image((reverse.x_start - x_start) ** 2),
        eps_mse=mean_per_image((eps - noise) ** 2),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class LikelihoodStep:
    """The terms in one column, 0..K-1, of the internal steps that were asked for."""

    column: int
    terms: LikelihoodTerms


@torch.no_grad()
def likelihood_steps(
    denoiser: Denoiser,
    diffusion: GaussianDiffusion,
    x_start: Tensor,
    at: Tensor,
    noise_of: NoiseOf,
    *,
    clip: bool,
) -> Iterator[LikelihoodStep]:
    """The terms of x_start [N, C, H, W] in [-1, 1] at internal steps int64 [N, K], last column first."""
    for column in reversed(range(at.shape[1])):
        t = at[:, column].to(x_start.device)
        terms = likelihood_terms(denoiser, diffusion, x_start, t, noise_of(t), clip=clip)
        yield LikelihoodStep(column=column, terms=terms)


@dataclass(frozen=True, kw_only=True, eq=False)
class BitsPerDim:
    """The bound on N images: total, prior and vb [N] in bits/dim; the terms are [N, K], by column."""

    total: Tensor
    prior: Tensor
    vb: Tensor
    terms: LikelihoodTerms


def bits_per_dim(
    diffusion: GaussianDiffusion, x_start: Tensor, steps: Iterable[LikelihoodStep], weights: Tensor
) -> BitsPerDim:
    """The bound on x_start [N, C, H, W] from all that `likelihood_steps` gives.

    weights: [K], how many steps of the chain each column stands for; their sum is n.
    """
    ascending = [step.terms for step in sorted(steps, key=lambda step: step.column)]
    assert len(ascending) == len(weights)
    assert int(weights.sum()) == diffusion.steps
    terms = LikelihoodTerms(
        vb=torch.stack([term.vb for term in ascending], dim=1),
        x_start_mse=torch.stack([term.x_start_mse for term in ascending], dim=1),
        eps_mse=torch.stack([term.eps_mse for term in ascending], dim=1),
    )
    prior = prior_bits_per_dim(diffusion, x_start)
    # arXiv 2006.11239, equation 5
    vb = (terms.vb * weights).sum(dim=1)
    return BitsPerDim(total=vb + prior, prior=prior, vb=vb, terms=terms)
