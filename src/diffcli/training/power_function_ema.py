"""Moving averages whose width is chosen after training (Karras et al., arXiv 2312.02696).

Section 3.1: the average of profile gamma weighs the weights theta at time tau by tau^gamma, so that its width
grows with the training. Section 3.2 and appendix C: averages of other profiles are linear combinations of
stored ones. Time t is the number of optimizer steps done; all but the weights is float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffcli.training.ema import NamedTensors

Array = NDArray[np.float64]

# of gamma = 0, the plain mean of all steps
WIDEST_STD: float = 12**-0.5


def std_of(gamma: float) -> float:
    """The standard deviation of the profile tau^gamma on 0..t, relative to t (sigma_rel); gamma >= 0."""
    # arXiv 2312.02696, section 3.1
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


@cache
def gamma_of(std: float) -> float:
    """The exponent gamma >= 0 of the profile with this relative width; std: above 0, up to WIDEST_STD.

    Raises ValueError for another width: no profile has it.
    """
    if not 0 < std <= WIDEST_STD:
        raise ValueError(f"a relative width of {std} is not in (0, {WIDEST_STD:.4f}]")
    # the largest root of (gamma + 2)^2 (gamma + 3) = (gamma + 1) / std^2
    inverse = std**-2
    return max(0.0, float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max()))


def decay_at(gamma: float, t: int) -> float:
    """The decay beta_gamma(t) of the update at time t = 1, 2, ...; 0 at t = 1, when nothing came before."""
    # arXiv 2312.02696, section 3.1
    return math.pow(1 - 1 / t, gamma + 1)


class PowerFunctionAverage:
    """The power-function average of a model's parameters, in float32; the first update starts it."""

    def __init__(self, model: nn.Module, *, std: float) -> None:
        self.std = std
        self._gamma = gamma_of(std)
        self._parameters = dict(model.named_parameters())
        self.weights: NamedTensors = {
            name: parameter.detach().clone() for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters as they are after step `step`, which counts from 0."""
        # interpolated, so that weights that do not change stay what they are bit by bit
        torch._foreach_lerp_(
            list(self.weights.values()),
            [parameter.detach() for parameter in self._parameters.values()],
            1.0 - decay_at(self._gamma, step + 1),
        )

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the average; the names must be those of the parameters."""
        for name, average in self.weights.items():
            average.copy_(weights[name])


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The profile of the average with relative width `std`, after `step` >= 1 optimizer steps."""

    std: float
    step: int


@dataclass(frozen=True, kw_only=True)
class ProfileFit:
    """A profile p as the combination sum_i x_i p_i of others.

    coefficients: x_i, which sum to 1; relative_error: ||p - sum_i x_i p_i|| / ||p||, down to about 1e-8.
    """

    coefficients: tuple[float, ...]
    relative_error: float


def fit_profile(target: Profile, stored: Sequence[Profile]) -> ProfileFit:
    """The combination of stored profiles that is nearest to the target, and exact for one of them.

    stored: all different. The paper leaves the sum of the coefficients free. Here it is 1, so that weights
    that do not change stay as they are, which matters to a network whose weights are not normalized.
    """
    if target in stored:
        return ProfileFit(
            coefficients=tuple(float(profile == target) for profile in stored), relative_error=0.0
        )
    a = inner_products(stored, stored)
    b = inner_products(stored, [target])[:, 0]
    x = _least_squares(a, b)
    squared_norm = float(inner_products([target], [target])[0, 0])
    # ||p - sum_i x_i p_i||^2, which rounding may take below 0
    squared_error = max(0.0, squared_norm - 2 * float(x @ b) + float(x @ a @ x))
    return ProfileFit(coefficients=tuple(x.tolist()), relative_error=math.sqrt(squared_error / squared_norm))


def _least_squares(a: Array, b: Array) -> Array:
    """The x nearest to the solution of a x = b, in the norm of a, whose sum is 1."""
    # profiles of norm 1 are better conditioned
    norms = np.sqrt(a.diagonal())
    scaled = a / np.outer(norms, norms)
    # arXiv 2312.02696, appendix C: X = A^-1 B
    free = np.linalg.solve(scaled, b / norms) / norms
    # the multiplier of Lagrange moves it along A^-1 1
    direction = np.linalg.solve(scaled, 1 / norms) / norms
    solution: Array = free + direction * (1 - free.sum()) / direction.sum()
    return solution


def inner_products(rows: Sequence[Profile], columns: Sequence[Profile]) -> Array:
    """The integrals of p_i p_j over all times, [rows, columns]; p_i(tau) ~ tau^gamma_i up to t_i, then 0."""
    gamma_i, t_i = (axis[:, None] for axis in _exponents_and_times(rows))
    gamma_j, t_j = _exponents_and_times(columns)
    earlier, later = np.minimum(t_i, t_j), np.maximum(t_i, t_j)
    gamma_of_later = np.where(t_i > t_j, gamma_i, gamma_j)
    # arXiv 2312.02696, appendix C, from p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1)
    factors = (gamma_i + 1) * (gamma_j + 1) / (gamma_i + gamma_j + 1)
    products: Array = factors * (earlier / later) ** gamma_of_later / later
    return products


def _exponents_and_times(profiles: Sequence[Profile]) -> tuple[Array, Array]:
    return (
        np.array([gamma_of(profile.std) for profile in profiles]),
        np.array([float(profile.step) for profile in profiles]),
    )
