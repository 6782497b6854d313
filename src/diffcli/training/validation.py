"""The objective on images that are not trained on: the same ones, timesteps and noise every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffcli.randomness.streams import Stream, normal
from diffcli.records.training import LoggedTerms
from diffcli.training.interval import IntervalSums
from diffcli.training.objective import Draws, Examples, Objective, clean_draws
from diffcli.workers import Workers, sent

# not the run's own, so that runs with other seeds, and one that was rolled back, meet the same numbers
VALIDATION_SEED = 0


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Images of a validation split, on the device; indices: int64 [N], their numbers in it, on the CPU."""

    examples: Examples
    indices: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Validation:
    """Measures a network on images that stand in a fixed order, of which each process takes some.

    read: the images at some places of the order, 0..count-1; microbatch: images per forward pass; noisy: as
    training.noisy.
    """

    network: nn.Module
    objective: Objective
    workers: Workers
    read: Callable[[range], HeldOut]
    count: int
    microbatch: int
    noisy: bool

    def measure(self) -> LoggedTerms:
        """The means over all of the images, each of which counts the same; equal in all processes."""
        sums = IntervalSums(self.workers.device)
        share = self.workers.share(self.count)
        assert share
        self.network.eval()
        with torch.no_grad():
            for start in range(share.start, share.stop, self.microbatch):
                self._add(range(start, min(start + self.microbatch, share.stop)), sums)
        # added in rank order on every process, so that all of them see the same bits
        means = sums.means(torch.stack(self.workers.gather_on_host(sums.tensor())).sum(dim=0))
        assert means is not None
        return self.objective.named(means.losses)

    def _add(self, places: range, sums: IntervalSums) -> None:
        held_out = self.read(places)
        draws = self._draws(places, held_out)
        losses = self.objective.losses(self.network, held_out.examples, draws)
        sums.add_losses(losses, draws.weights, draws.t, self.objective.chain_steps)

    def _draws(self, places: range, held_out: HeldOut) -> Draws:
        device = self.workers.device
        if not self.noisy:
            return clean_draws(len(places), device)
        shape = held_out.examples.x_start.shape[1:]
        return Draws(
            t=sent(spread_timesteps(places, self.count, self.objective.chain_steps), device),
            weights=torch.ones(len(places), device=device),
            noise=normal(
                VALIDATION_SEED, Stream.VALIDATION_NOISE, held_out.indices.to(device), shape, step=0
            ),
        )


def spread_timesteps(places: range, count: int, steps: int) -> Tensor:
    """The timesteps of places 0..count-1, each in the middle of its part of the chain: int64 [N]."""
    return (2 * torch.arange(places.start, places.stop) + 1) * steps // (2 * count)
