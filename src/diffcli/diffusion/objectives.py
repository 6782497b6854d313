"""The training objectives L_simple, L_hybrid and L_vlb (arXiv 2102.09672, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffcli.diffusion.build import GaussianDiffusion
from diffcli.diffusion.likelihood import mean_per_image, vb_term
from diffcli.diffusion.process import q_posterior
from diffcli.diffusion.reverse import p_mean_variance
from diffcli.diffusion.variance import split_output

# arXiv 2102.09672, below equation 16: lambda of L_hybrid, against a vb summed over the timesteps
_LAMBDA = 0.001


@dataclass(frozen=True, kw_only=True, eq=False)
class LossTerms:
    """The loss of each image and its parts as they enter it, each [N]; None for a part that is not in it."""

    loss: Tensor
    mse: Tensor | None
    vb: Tensor | None


def training_losses(
    diffusion: GaussianDiffusion,
    model_output: Tensor,
    *,
    x_start: Tensor,
    x_t: Tensor,
    t: Tensor,
    noise: Tensor,
) -> LossTerms:
    """The loss terms of model_output, [N, C, H, W] or [N, 2C, H, W] in float32, at x_t and t int64 [N].

    x_start: [N, C, H, W] in [-1, 1]; noise: what `q_sample` mixed in to make x_t.
    """
    if diffusion.objective in ("vlb", "vlb_unscaled"):
        vb = _vb(diffusion, model_output, x_start, x_t, t)
        if diffusion.objective == "vlb":
            # the sum over the timesteps, estimated from one of them
            vb = vb * diffusion.steps
        return LossTerms(loss=vb, mse=None, vb=vb)

    output = split_output(diffusion, model_output, x_t.shape[1])
    target = _target(diffusion, x_start, x_t, t, noise)
    # arXiv 2006.11239, equation 14
    mse = mean_per_image((target - output.prediction) ** 2)
    if diffusion.objective == "simple":
        return LossTerms(loss=mse, mse=mse, vb=None)

    # arXiv 2102.09672, section 3.1: L_vlb guides the variance alone, so its mean is held fast
    frozen = output.prediction.detach()
    if output.variance_values is not None:
        frozen = torch.cat((frozen, output.variance_values), dim=1)
    vb = _vb(diffusion, frozen, x_start, x_t, t)
    if diffusion.objective == "hybrid":
        vb = vb * (diffusion.steps * _LAMBDA)
    # arXiv 2102.09672, equation 16
    return LossTerms(loss=mse + vb, mse=mse, vb=vb)


def _target(diffusion: GaussianDiffusion, x_start: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """What the network should have predicted."""
    if diffusion.predict == "eps":
        return noise
    if diffusion.predict == "x_prev":
        return q_posterior(diffusion, x_start, x_t, t).mean
    return x_start


def _vb(
    diffusion: GaussianDiffusion, model_output: Tensor, x_start: Tensor, x_t: Tensor, t: Tensor
) -> Tensor:
    """The term of the variational bound without clipping, which would stop gradients: bits/dim [N]."""
    reverse = p_mean_variance(diffusion, model_output, x_t, t, clip=False)
    return vb_term(diffusion, reverse, x_start, x_t, t)
