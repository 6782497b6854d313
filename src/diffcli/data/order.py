"""Which images make which global batch: a function of (seed, step), so that there is nothing to resume."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from diffcli.randomness.streams import permutation

# Batches computed ahead of each other stand on both sides of an epoch's end.
_EPOCHS_CACHED = 3


@dataclass(frozen=True, kw_only=True)
class OrderedImages:
    """For each position the epoch and the image index in 0..count-1, int64 [N] both."""

    epochs: Tensor
    indices: Tensor


class TrainingOrder:
    """Cuts the endless concatenation of one permutation per epoch into global batches.

    Every image comes once per epoch; a batch may straddle epochs, or hold several when there are fewer images
    than a batch has positions. Thread-safe.
    """

    def __init__(self, *, seed: int, count: int, batch_size: int) -> None:
        assert count >= 1
        assert batch_size >= 1
        self._count = count
        self._batch_size = batch_size
        self._permutation = lru_cache(_EPOCHS_CACHED)(lambda epoch: permutation(seed, epoch, count))
        # without it two threads would work out the same new epoch at the same time
        self._lock = threading.Lock()

    def at(self, step: int, positions: range) -> OrderedImages:
        """The images at these positions, 0..batch_size-1, of the global batch of a step, counted from 0."""
        places = step * self._batch_size + torch.arange(positions.start, positions.stop, positions.step)
        epochs, offsets = places // self._count, places % self._count
        indices = torch.empty_like(places)
        for epoch in sorted(set(epochs.tolist())):
            here = epochs == epoch
            with self._lock:
                order = self._permutation(epoch)
            indices[here] = order[offsets[here]]
        return OrderedImages(epochs=epochs, indices=indices)
