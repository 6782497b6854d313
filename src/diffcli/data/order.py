"""Which images make which global batch: a function of (seed, step), so that there is nothing to resume."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from diffcli.randomness.streams import Stream, permutation, random_words

# Batches computed ahead of each other stand on both sides of an epoch's end.
_EPOCHS_CACHED = 3
_BLOCK = 2**18
_NONE = torch.empty(0, dtype=torch.int64)


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
        assert positions.step == 1
        place = step * self._batch_size + positions.start
        left = len(positions)
        epochs, indices = [], []
        while left:
            epoch, offset = divmod(place, self._count)
            with self._lock:
                order = self._permutation(epoch)
            part = order[offset : offset + left]
            indices.append(part)
            epochs.append(torch.full_like(part, epoch))
            place, left = place + len(part), left - len(part)
        if not indices:
            return OrderedImages(epochs=_NONE, indices=_NONE)
        return OrderedImages(epochs=torch.cat(epochs), indices=torch.cat(indices))


class EpochFlips:
    """Which images are mirrored in an epoch: a function of (seed, epoch, image). Thread-safe."""

    def __init__(self, *, seed: int, count: int) -> None:
        self._flips = lru_cache(_EPOCHS_CACHED)(lambda epoch: _flips_of(seed, epoch, count))
        self._lock = threading.Lock()

    def of(self, ordered: OrderedImages) -> Tensor:
        """bool [N] for the images of a batch."""
        epochs = ordered.epochs
        if not len(epochs):
            return torch.empty(0, dtype=torch.bool)
        flips = torch.empty(len(epochs), dtype=torch.bool)
        # they come in rising order
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = slice(*torch.searchsorted(epochs, torch.tensor([epoch, epoch + 1])).tolist())
            with self._lock:
                flips[here] = self._flips(epoch)[ordered.indices[here]]
        return flips


def _flips_of(seed: int, epoch: int, count: int) -> Tensor:
    """bool [count]; in blocks, since the generator needs many times the memory of its bits."""
    parts = [
        random_words(seed, Stream.FLIP, torch.arange(start, min(start + _BLOCK, count)), step=epoch, count=1)
        for start in range(0, count, _BLOCK)
    ]
    return torch.cat([words[:, 0] < 2**31 for words in parts])
