"""The reverse process p that a network's output stands for (arXiv 2006.11239, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from diffcli.diffusion.build import GaussianDiffusion
from diffcli.diffusion.prediction import predicted_x_start
from diffcli.diffusion.process import q_posterior
from diffcli.diffusion.variance import reverse_variance, split_output

# (x_t [N, C, H, W], model timesteps [N]) -> model output [N, C or 2C, H, W], float32
Denoiser = Callable[[Tensor, Tensor], Tensor]

# internal step -> standard normal noise of the shape of the images
NoiseAt = Callable[[int], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReverseStep:
    """p(x_{t-1} | x_t), and the x_start it was worked out from.

    mean and x_start: [N, C, H, W]; variance and log_variance: [N, 1, 1, 1] if fixed, [N, C, H, W] if learned.
    """

    mean: Tensor
    variance: Tensor
    log_variance: Tensor
    x_start: Tensor


def p_mean_variance(
    diffusion: GaussianDiffusion,
    model_output: Tensor,
    x_t: Tensor,
    t: Tensor,
    *,
    clip: bool,
    denoised: Callable[[Tensor], Tensor] | None = None,
) -> ReverseStep:
    """p(x_{t-1} | x_t) from the output of the network, [N, C, H, W] or [N, 2C, H, W], at x_t and t int64 [N].

    clip: clip the predicted x_start to [-1, 1]; denoised: a change to make to it before that.
    A network that predicts x_prev gives the mean itself, which neither of them touches.
    """
    output = split_output(diffusion, model_output, x_t.shape[1])
    spread = reverse_variance(diffusion, x_t, t, output.variance_values)
    x_start = predicted_x_start(diffusion, x_t, t, output.prediction)
    if denoised is not None:
        x_start = denoised(x_start)
    if clip:
        x_start = x_start.clamp(-1, 1)
    predicts_mean = diffusion.predict == "x_prev"
    return ReverseStep(
        mean=output.prediction if predicts_mean else q_posterior(diffusion, x_start, x_t, t).mean,
        variance=spread.variance,
        log_variance=spread.log_variance,
        x_start=x_start,
    )
