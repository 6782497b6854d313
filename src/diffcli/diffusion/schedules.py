"""Noise schedules: betas and all that follows from them (arXiv 2006.11239, 2; arXiv 2102.09672, 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from diffcli.config.suggest import did_you_mean, either, nearest
from diffcli.diffusion.table import Table
from diffcli.errors import UsageError

_LARGEST_COSINE_BETA = 0.999


def linear_betas(steps: int) -> Tensor:
    """The linear schedule for any number of steps: float64 [T]; below 20 steps the last betas exceed 1."""
    # arXiv 2006.11239, section 4: 1e-4 to 0.02 at 1000 steps, scaled so that alpha_bar ends the same
    return torch.linspace(0.1 / steps, 20 / steps, steps, dtype=torch.float64)


def cosine_betas(steps: int) -> Tensor:
    """The cosine schedule: float64 [T], none above 0.999."""
    # arXiv 2102.09672, equation 17
    alpha_bars = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
    betas = [min(1 - after / before, _LARGEST_COSINE_BETA) for before, after in pairwise(alpha_bars)]
    return torch.tensor(betas, dtype=torch.float64)


_BETAS = {"linear": linear_betas, "cosine": cosine_betas}


def named_betas(schedule: str, steps: int) -> Tensor:
    """The betas of a schedule by its name: float64 [T]; UsageError for a name that is not one."""
    if schedule not in _BETAS:
        raise UsageError(
            f"there is no noise schedule {schedule!r}",
            where="diffusion.schedule",
            remedy=did_you_mean(nearest(schedule, _BETAS)) or f"it can be {either(tuple(_BETAS))}",
        )
    return _BETAS[schedule](steps)


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The betas of a chain and every table derived from them, all float64 over t = 0..T-1.

    betas: float64 [T], each above 0 and at most 1, else UsageError.
    """

    betas: Tensor

    def __post_init__(self) -> None:
        if self.betas.ndim != 1 or len(self.betas) == 0:
            raise UsageError(
                f"a noise schedule is a list of at least one beta, not a shape of {tuple(self.betas.shape)}"
            )
        # written so that a NaN is refused as well
        wrong = ~((self.betas > 0) & (self.betas <= 1))
        if wrong.any():
            t = int(wrong.nonzero()[0])
            raise UsageError(
                f"the noise schedule has a beta of {float(self.betas[t]):.6g} at timestep {t}",
                remedy="every beta must be above 0 and at most 1",
            )

    @property
    def steps(self) -> int:
        """The length T of the chain."""
        return len(self.betas)

    @cached_property
    def alpha_bar(self) -> Table:
        """The share of the image's variance that is left at t."""
        # arXiv 2006.11239, section 2, above equation 4
        return Table(torch.cumprod(1 - self.betas, dim=0))

    @cached_property
    def alpha_bar_prev(self) -> Table:
        """alpha_bar at t-1; 1 at t = 0."""
        return Table(torch.cat((torch.ones(1, dtype=torch.float64), self.alpha_bar.values[:-1])))

    @cached_property
    def alpha_bar_next(self) -> Table:
        """alpha_bar at t+1; 0 at t = T-1."""
        return Table(torch.cat((self.alpha_bar.values[1:], torch.zeros(1, dtype=torch.float64))))

    @cached_property
    def sqrt_alpha_bar(self) -> Table:
        """The weight of x_start in x_t."""
        return Table(self.alpha_bar.values.sqrt())

    @cached_property
    def one_minus_alpha_bar(self) -> Table:
        """The variance of x_t given x_start."""
        return Table(1 - self.alpha_bar.values)

    @cached_property
    def sqrt_one_minus_alpha_bar(self) -> Table:
        """The weight of eps in x_t."""
        return Table(self.one_minus_alpha_bar.values.sqrt())

    @cached_property
    def log_one_minus_alpha_bar(self) -> Table:
        """The log variance of x_t given x_start."""
        return Table(self.one_minus_alpha_bar.values.log())

    @cached_property
    def sqrt_recip_alpha_bar(self) -> Table:
        """The weight of x_t in x_start, given eps."""
        return Table((1 / self.alpha_bar.values).sqrt())

    @cached_property
    def sqrt_recipm1_alpha_bar(self) -> Table:
        """The weight of eps in x_start, given x_t, with its sign turned."""
        return Table((1 / self.alpha_bar.values - 1).sqrt())

    @cached_property
    def posterior_variance(self) -> Table:
        """The variance of x_{t-1} given x_t and x_start; exactly 0 at t = 0."""
        # arXiv 2006.11239, equation 7
        return Table(self.betas * (1 - self.alpha_bar_prev.values) / self.one_minus_alpha_bar.values)

    @cached_property
    def posterior_log_variance(self) -> Table:
        """The log of the posterior variance, finite at t = 0, where it repeats t = 1."""
        return Table(self._first_replaced(self.posterior_variance.values).log())

    @cached_property
    def posterior_weight_of_x_start(self) -> Table:
        """The weight of x_start in the posterior mean."""
        # arXiv 2006.11239, equation 7
        return Table(self.betas * self.alpha_bar_prev.values.sqrt() / self.one_minus_alpha_bar.values)

    @cached_property
    def posterior_weight_of_x_t(self) -> Table:
        """The weight of x_t in the posterior mean."""
        # arXiv 2006.11239, equation 7
        left = (1 - self.alpha_bar_prev.values) * (1 - self.betas).sqrt()
        return Table(left / self.one_minus_alpha_bar.values)

    @cached_property
    def log_beta(self) -> Table:
        """The upper bound of the log variance of the reverse process."""
        return Table(self.betas.log())

    @cached_property
    def large_variance(self) -> Table:
        """beta, with the posterior variance of t = 1 at t = 0, where beta would blur the finished image."""
        return Table(self._first_replaced(self.betas))

    @cached_property
    def log_large_variance(self) -> Table:
        """The log of `large_variance`."""
        return Table(self.large_variance.values.log())

    def _first_replaced(self, values: Tensor) -> Tensor:
        """The values [T] with the posterior variance of t = 1 at t = 0; a single step has only its beta."""
        first = self.posterior_variance.values[1:2] if self.steps > 1 else self.betas
        return torch.cat((first, values[1:]))
