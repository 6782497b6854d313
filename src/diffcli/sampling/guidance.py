"""Steering samples towards their classes: by a classifier, or by the network's own two predictions.

All images are [N, C, H, W], t is int64 [N] of internal timesteps, 0..n-1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcli.config.sections import SolverName
from diffcli.diffusion.build import GaussianDiffusion
from diffcli.diffusion.prediction import eps_from_x_start, x_start_from_eps
from diffcli.diffusion.reverse import Denoiser, ReverseStep

# (x_t [N, C, H, W], model timesteps [N]) -> logits [N, classes]
NoisyClassifier = Callable[[Tensor, Tensor], Tensor]

# (x_t, t) -> the gradient at x_t of the wanted classes' log probability, times its scale, float32 like x_t
GradientAt = Callable[[Tensor, Tensor], Tensor]


def class_gradient(classifier: NoisyClassifier, x_t: Tensor, model_timesteps: Tensor, y: Tensor) -> Tensor:
    """The gradient of log p(y | x_t) with respect to x_t, for the wanted classes y, int64 [N].

    No image's gradient depends on the others. Works where gradients are switched off.
    """
    with torch.enable_grad():
        x = x_t.detach().requires_grad_()
        log_probabilities = F.log_softmax(classifier(x, model_timesteps).float(), dim=1)
        wanted = log_probabilities.gather(1, y[:, None]).sum()
        # arXiv 2105.05233, section 4.1
        return torch.autograd.grad(wanted, x)[0]


def guided(
    diffusion: GaussianDiffusion,
    solver: SolverName,
    reverse: ReverseStep,
    x_t: Tensor,
    t: Tensor,
    gradient: Tensor,
) -> ReverseStep:
    """p(x_{t-1} | x_t) led along a gradient of log p(y | x_t), times its scale, in the solver's own way.

    For ancestral sampling the mean moves and x_start stays; for DDIM x_start moves, and is not clipped again.
    """
    if solver == "ancestral":
        # arXiv 2105.05233, algorithm 1
        return dataclasses.replace(reverse, mean=reverse.mean + reverse.variance * gradient)
    eps = eps_from_x_start(diffusion, x_t, t, reverse.x_start)
    # arXiv 2105.05233, algorithm 2
    guided_eps = eps - diffusion.schedule.sqrt_one_minus_alpha_bar.at(t, x_t) * gradient
    return dataclasses.replace(reverse, x_start=x_start_from_eps(diffusion, x_t, t, guided_eps))


def classifier_free(denoiser: Denoiser, weight: float) -> Denoiser:
    """Both predictions of a network as one: 0 the one without classes, 1 that with them, above 1 beyond it.

    denoiser: takes 2N images, the first N with their classes, the others without. Whatever it predicts, eps,
    x_start or x_prev, the result is the same, since they are linear in each other. A learned variance is
    that of the prediction with classes.
    """

    def denoise(x_t: Tensor, model_timesteps: Tensor) -> Tensor:
        both = denoiser(torch.cat((x_t, x_t)), torch.cat((model_timesteps, model_timesteps)))
        with_class, without = both.chunk(2)
        channels = x_t.shape[1]
        # arXiv 2207.12598, equation 6, with weight = 1 + w
        prediction = without[:, :channels] + weight * (with_class[:, :channels] - without[:, :channels])
        return torch.cat((prediction, with_class[:, channels:]), dim=1)

    return denoise
