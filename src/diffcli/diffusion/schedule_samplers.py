"""How training draws its timesteps (arXiv 2102.09672, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffcli.config.suggest import did_you_mean, either, nearest
from diffcli.errors import UsageError

# arXiv 2102.09672, section 3.3: ten losses of each timestep
_HISTORY_LENGTH = 10
# the share of draws that stays uniform, so that no timestep is ever forgotten
_UNIFORM_SHARE = 0.001


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnTimesteps:
    """t int64 [N] in 0..T-1, and the weights float32 [N] that keep the weighted mean loss unbiased."""

    t: Tensor
    weights: Tensor


class ScheduleSampler(Protocol):
    """A distribution over the timesteps 0..T-1 that may learn from the losses; its tensors are on the CPU."""

    @property
    def learns(self) -> bool:
        """Whether `update` changes anything."""

    def draw(self, uniforms: Tensor) -> DrawnTimesteps:
        """The timesteps that uniform numbers in [0, 1), float64 [N], stand for."""

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Learn, in the given order, the unweighted losses [N] seen at t int64 [N]."""

    def state_tensors(self) -> dict[str, Tensor]:
        """Copies of what was learned, by name; empty for a sampler that does not learn."""

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state_tensors` gave."""


def inverse_cdf(probabilities: Tensor, uniforms: Tensor) -> DrawnTimesteps:
    """Draw from probabilities float64 [T] that sum to 1, with uniform numbers in [0, 1), float64 [N]."""
    steps = len(probabilities)
    cumulative = torch.cumsum(probabilities, dim=0)
    # the last entry is 1 but for rounding, and no number may fall beyond it
    t = torch.searchsorted(cumulative / cumulative[-1], uniforms, right=True).clamp(max=steps - 1)
    # arXiv 2102.09672, equation 18, against the mean over a uniform t
    weights = 1 / (steps * probabilities[t])
    return DrawnTimesteps(t=t, weights=weights.float())


class UniformSampler:
    """Every timestep as likely as any other."""

    learns = False

    def __init__(self, steps: int) -> None:
        self.probabilities = torch.full((steps,), 1 / steps, dtype=torch.float64)

    def draw(self, uniforms: Tensor) -> DrawnTimesteps:
        """The timesteps of uniform numbers in [0, 1), float64 [N], all of weight 1."""
        return inverse_cdf(self.probabilities, uniforms)

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Nothing to learn."""

    def state_tensors(self) -> dict[str, Tensor]:
        """Nothing to keep."""
        return {}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to restore."""
        assert not tensors


class LossSecondMomentSampler:
    """Timesteps in proportion to the root mean square of their last losses, uniform until all have enough."""

    learns = True

    def __init__(self, steps: int, history_length: int = _HISTORY_LENGTH) -> None:
        # oldest first; the entries beyond a timestep's count are not losses yet
        self._history = torch.zeros(steps, history_length, dtype=torch.float64)
        self._counts = torch.zeros(steps, dtype=torch.int64)

    @property
    def probabilities(self) -> Tensor:
        """The probability of each timestep, float64 [T]."""
        steps, history_length = self._history.shape
        if (self._counts < history_length).any():
            return torch.full((steps,), 1 / steps, dtype=torch.float64)
        # arXiv 2102.09672, equation 18
        root_mean_square = self._history.square().mean(dim=1).sqrt()
        shares = root_mean_square / root_mean_square.sum()
        return (1 - _UNIFORM_SHARE) * shares + _UNIFORM_SHARE / steps

    def draw(self, uniforms: Tensor) -> DrawnTimesteps:
        """The timesteps that uniform numbers in [0, 1), float64 [N], stand for."""
        return inverse_cdf(self.probabilities, uniforms)

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Append, in order, the losses [N] at t int64 [N] to the histories; full ones forget their oldest."""
        history_length = self._history.shape[1]
        total = self._counts + torch.bincount(t, minlength=len(self._counts))
        forgotten = (total - history_length).clamp(min=0)
        # a row that forgets is full afterwards, so what the clamp repeats is written over below
        source = torch.arange(history_length) + forgotten[:, None]
        history = self._history.gather(1, source.clamp(max=history_length - 1))
        earlier = (t[:, None] == t).tril(-1).sum(dim=1)
        place = (self._counts - forgotten)[t] + earlier
        kept = place >= 0
        history[t[kept], place[kept]] = losses[kept].double()
        self._history, self._counts = history, total - forgotten

    def state_tensors(self) -> dict[str, Tensor]:
        """history: float64 [T, 10], oldest first; counts: int64 [T] in 0..10."""
        return {"history": self._history.clone(), "counts": self._counts.clone()}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a history and its counts, of the shapes this sampler has."""
        assert tensors["history"].shape == self._history.shape
        self._history, self._counts = tensors["history"].clone(), tensors["counts"].clone()


_SAMPLERS: dict[str, Callable[[int], ScheduleSampler]] = {
    "uniform": UniformSampler,
    "loss-second-moment": LossSecondMomentSampler,
}


def build_schedule_sampler(name: str, steps: int) -> ScheduleSampler:
    """The schedule sampler of a name over a chain of `steps`; UsageError for a name that is not one."""
    if name not in _SAMPLERS:
        raise UsageError(
            f"there is no schedule sampler {name!r}",
            where="training.schedule_sampler",
            remedy=did_you_mean(nearest(name, _SAMPLERS)) or f"it can be {either(tuple(_SAMPLERS))}",
        )
    return _SAMPLERS[name](steps)
