"""The variance of the reverse process, fixed or learned (arXiv 2102.09672, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffcli.diffusion.build import GaussianDiffusion


@dataclass(frozen=True, kw_only=True, eq=False)
class ReverseVariance:
    """A variance and its log: [N, 1, 1, 1] if fixed, [N, C, H, W] if learned."""

    variance: Tensor
    log_variance: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelOutput:
    """What the network returns: its prediction, and its variance values if any, each [N, C, H, W]."""

    prediction: Tensor
    variance_values: Tensor | None


def split_output(diffusion: GaussianDiffusion, model_output: Tensor, channels: int) -> ModelOutput:
    """Split model_output: [N, C, H, W], or [N, 2C, H, W] for a learned variance, into its halves."""
    if diffusion.variance in ("learned", "learned_range"):
        assert model_output.shape[1] == 2 * channels
        prediction, variance_values = model_output.chunk(2, dim=1)
        return ModelOutput(prediction=prediction, variance_values=variance_values)
    assert model_output.shape[1] == channels
    return ModelOutput(prediction=model_output, variance_values=None)


def reverse_variance(
    diffusion: GaussianDiffusion, x_t: Tensor, t: Tensor, variance_values: Tensor | None
) -> ReverseVariance:
    """The variance of p(x_{t-1} | x_t): x_t [N, C, H, W], t int64 [N], variance values as x_t or None."""
    schedule = diffusion.schedule
    if diffusion.variance == "fixed_small":
        return ReverseVariance(
            variance=schedule.posterior_variance.at(t, x_t),
            log_variance=schedule.posterior_log_variance.at(t, x_t),
        )
    if diffusion.variance == "fixed_large":
        return ReverseVariance(
            variance=schedule.large_variance.at(t, x_t),
            log_variance=schedule.log_large_variance.at(t, x_t),
        )
    assert variance_values is not None
    log_variance = variance_values
    if diffusion.variance == "learned_range":
        lower, upper = schedule.posterior_log_variance.at(t, x_t), schedule.log_beta.at(t, x_t)
        # arXiv 2102.09672, equation 15, for values in [-1, 1]
        share = (variance_values + 1) / 2
        log_variance = share * upper + (1 - share) * lower
    return ReverseVariance(variance=log_variance.exp(), log_variance=log_variance)
