"""Which images make which global batch: a function of (seed, step), so that there is nothing to resume."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from diffcli.randomness.streams import Stream, permutation, random_words

# Batches computed ahead of each other stand on both sides of an epoch's end.
_EPOCHS_CACHED = 3
_BLOCK = 2**18


@dataclass(frozen=True, kw_only=True, eq=False)
class EpochPart:
    """Images of one epoch in their order: indices int64 [n] in 0..count-1."""

    epoch: int
    indices: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class OrderedImages:
    """The images at some positions of a batch or several: parts of epochs, in rising order; mostly one."""

    parts: tuple[EpochPart, ...]

    @cached_property
    def indices(self) -> Tensor:
        """For each position the image index, int64 [N]."""
        return _joined([part.indices for part in self.parts], torch.int64)

    @cached_property
    def epochs(self) -> Tensor:
        """For each position the epoch, int64 [N]."""
        return _joined([torch.full_like(part.indices, part.epoch) for part in self.parts], torch.int64)


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
        """The images at these positions of the global batch of a step, counted from 0.

        Positions from batch_size on are of the next batches.
        """
        assert positions.step == 1
        place = step * self._batch_size + positions.start
        left = len(positions)
        parts = []
        while left:
            epoch, offset = divmod(place, self._count)
            with self._lock:
                order = self._permutation(epoch)
            part = EpochPart(epoch=epoch, indices=order[offset : offset + left])
            parts.append(part)
            place, left = place + len(part.indices), left - len(part.indices)
        return OrderedImages(parts=tuple(parts))

    def over(self, steps: range, positions: range) -> OrderedImages:
        """The images at these positions of the global batches of consecutive steps, batch after batch."""
        assert steps.step == 1
        if positions == range(self._batch_size):
            # nothing lies between one whole batch and the next
            return self.at(steps.start, range(len(steps) * self._batch_size))
        parts = [part for step in steps for part in self.at(step, positions).parts]
        return OrderedImages(parts=tuple(parts))


class EpochFlips:
    """Which images are mirrored in an epoch: a function of (seed, epoch, image). Thread-safe."""

    def __init__(self, *, seed: int, count: int) -> None:
        self._flips = lru_cache(_EPOCHS_CACHED)(lambda epoch: _flips_of(seed, epoch, count))
        self._lock = threading.Lock()

    def of(self, ordered: OrderedImages) -> Tensor:
        """bool [N] for the images of a batch."""
        with self._lock:
            flips = [self._flips(part.epoch)[part.indices] for part in ordered.parts]
        return _joined(flips, torch.bool)


def _joined(parts: list[Tensor], dtype: torch.dtype) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts) if parts else torch.empty(0, dtype=dtype)


def _flips_of(seed: int, epoch: int, count: int) -> Tensor:
    """bool [count]; in blocks, since the generator needs many times the memory of its bits."""
    parts = [
        random_words(seed, Stream.FLIP, torch.arange(start, min(start + _BLOCK, count)), step=epoch, count=1)
        for start in range(0, count, _BLOCK)
    ]
    return torch.cat([words[:, 0] < 2**31 for words in parts])
