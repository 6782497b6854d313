"""A chain of which each image sees a few timesteps, drawn so that they stand for all.

The chain is cut into strata, and in each of them one step is drawn, uniformly and for each image on its own.
Weighted by the lengths of the strata, the terms at these steps add up to an unbiased estimate of the sum over
the whole chain (stratified sampling: Cochran, "Sampling Techniques", 1977, chapter 5). The bound of a network
is spread very unevenly: its terms fall by orders of magnitude with the timestep, fastest where there is least
noise. So the strata are single steps there and grow in proportion to the timestep.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from diffcli.randomness.streams import Stream, uniform


@dataclass(frozen=True, kw_only=True)
class TimestepStrata:
    """A chain of n steps in K strata, 1 <= K <= n, of growing length; K = n leaves nothing to chance."""

    chain_steps: int
    count: int

    @property
    def every_step(self) -> bool:
        """Whether each image sees the whole chain."""
        return self.count == self.chain_steps

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The lengths of the strata, from the least noise on: n in all."""
        ends = [0, 1] if self.count > 1 else [0]
        for left in range(self.count + 1 - len(ends), 1, -1):
            # the rest would be cut by equal ratios; where that gives less than a step, one step
            ratio = (self.chain_steps / ends[-1]) ** (1 / left)
            ends.append(max(ends[-1] + 1, round(ends[-1] * ratio)))
        return tuple(last - first for first, last in pairwise([*ends, self.chain_steps]))

    @property
    def weights(self) -> Tensor:
        """The same, float64 [K]: how many steps of the chain each drawn one stands for."""
        return torch.tensor(self.sizes, dtype=torch.float64)

    def drawn(self, seed: int, images: Tensor) -> Tensor:
        """The internal steps of images, int64 [N] indices into their dataset: int64 [N, K], ascending."""
        # on the host, as MPS holds no float64
        return self.steps_at(
            uniform(seed, Stream.LIKELIHOOD_TIMESTEP, images.cpu(), step=0, count=self.count)
        )

    def steps_at(self, shares: Tensor) -> Tensor:
        """The steps so far into each stratum, float64 [N, K] in [0, 1) of its length: int64 [N, K]."""
        starts = torch.tensor(list(accumulate(self.sizes, initial=0))[:-1])
        return starts + (shares * self.weights).long()
