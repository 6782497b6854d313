"""Exponential moving averages of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

NamedTensors = dict[str, Tensor]


def decay_at(rate: float, step: int, warmup_steps: int) -> float:
    """The decay used after step `step`: the rate, held down at first so that the start is soon forgotten."""
    if warmup_steps == 0:
        return rate
    return min(rate, (1 + step) / (warmup_steps + step))


class MovingAverage:
    """One moving average of a model's parameters, in float32, starting as a copy of them."""

    def __init__(self, model: nn.Module, *, rate: float, warmup_steps: int) -> None:
        self.rate = rate
        self._warmup_steps = warmup_steps
        self._parameters = dict(model.named_parameters())
        self.weights: NamedTensors = {
            name: parameter.detach().clone() for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters as they are after step `step`: ema <- d * ema + (1 - d) * parameter."""
        decay = decay_at(self.rate, step, self._warmup_steps)
        averages = list(self.weights.values())
        parameters = [parameter.detach() for parameter in self._parameters.values()]
        # scaled and added, not interpolated: near a rate of 1 the reference's rounding is part of its numbers
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, parameters, alpha=1.0 - decay)

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the averages; the names must be those of the parameters."""
        for name, average in self.weights.items():
            average.copy_(weights[name])
