"""Named streams of random numbers, each number a function of (seed, stream, step, item)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum, unique

import torch
from torch import Tensor

from diffcli.randomness.philox import blocks, key_of


@unique
class Stream(IntEnum):
    """What the numbers are for; a value is never given to another purpose, as runs on disk depend on it."""

    DATA_ORDER = 1  # step: epoch, item: image index
    FLIP = 2  # step: epoch, item: image index
    CROP = 3  # step: epoch, item: image index
    TIMESTEP = 4  # step: optimizer step, item: position in the global batch
    TRAINING_NOISE = 5  # step: optimizer step, item: position in the global batch
    LABEL_DROP = 6  # step: optimizer step, item: position in the global batch
    DROPOUT = 7  # step: optimizer step, item: rank and microbatch; seeds torch's generator
    INITIAL_NOISE = 8  # step: 0, item: sample index
    STEP_NOISE = 9  # step: internal timestep, item: sample index
    SAMPLE_CLASS = 10  # step: 0, item: sample index
    LIKELIHOOD_NOISE = 11  # step: timestep, item: image index
    MODEL_INIT = 12  # step: 0, item: 0; seeds torch's generator
    ROLLBACK = 13  # step: that was gone back to, item: attempt; the seed that the run goes on with
    VALIDATION_ORDER = 14  # step: 0, item: image index; the seed is no run's
    VALIDATION_NOISE = 15  # step: 0, item: image index; the seed is no run's
    ENLARGING = 16  # step: low resolution, item: 0; the seed of the noise of super-resolution
    KERNEL_SAMPLES = 17  # step: subset, item: sample index
    KERNEL_REFERENCE = 18  # step: subset, item: image index
    FRECHET_SUBSET = 19  # step: subset, item: sample index
    BOOTSTRAP = 20  # step: resample, item: place in the resample
    LIKELIHOOD_TIMESTEP = 21  # step: 0, item: image index; word: stratum of the chain


def random_words(seed: int, stream: Stream, items: Tensor, *, step: int | Tensor, count: int) -> Tensor:
    """Uniform 32-bit words: int64 [N, count] in 0..2**32-1 for items int64 [N]."""
    words = blocks(key_of(seed), items, step=step, stream=stream, count=math.ceil(count / 4))
    return torch.stack(words, dim=-1).flatten(1)[:, :count]


def uniform(seed: int, stream: Stream, items: Tensor, *, step: int | Tensor, count: int = 1) -> Tensor:
    """Uniform numbers in [0, 1) on a grid of 2**-32: float64 [N, count] for items int64 [N]."""
    return random_words(seed, stream, items, step=step, count=count).double() * 2.0**-32


def normal(seed: int, stream: Stream, items: Tensor, shape: Sequence[int], *, step: int | Tensor) -> Tensor:
    """Standard normal numbers: float32 [N, *shape] for items int64 [N] (Box and Muller, 1958)."""
    count = math.prod(shape)
    w0, w1, w2, w3 = blocks(key_of(seed), items, step=step, stream=stream, count=math.ceil(count / 4))
    # the half keeps the logarithm finite: the smallest u is 2**-33, the largest normal 6.76
    radius_words = torch.stack((w0, w2), dim=-1).float()
    angle_words = torch.stack((w1, w3), dim=-1).float()
    radius = torch.sqrt(-2.0 * torch.log((radius_words + 0.5) * 2.0**-32))
    angle = angle_words * (2.0 * math.pi * 2.0**-32)
    numbers = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return numbers.flatten(1)[:, :count].reshape(items.shape[0], *shape)


def derived_seed(seed: int, stream: Stream, *, step: int, item: int) -> int:
    """A seed in 0..2**63-1 for a generator that is not ours (torch's, for dropout and initial weights)."""
    high, low = random_words(seed, stream, torch.tensor([item]), step=step, count=2)[0].tolist()
    return ((int(high) << 32) | int(low)) & (2**63 - 1)


def permutation(seed: int, epoch: int, length: int) -> Tensor:
    """The order of one epoch: int64 [length], every index once, a function of (seed, epoch)."""
    return shuffled(seed, Stream.DATA_ORDER, length, step=epoch)


def shuffled(seed: int, stream: Stream, length: int, *, step: int) -> Tensor:
    """An order of 0..length-1: int64 [length], every index once, a function of (seed, stream, step)."""
    words = random_words(seed, stream, torch.arange(length), step=step, count=2)
    # 63 of the 64 bits: a sort key must not wrap into the sign; ties fall to the stable sort
    return torch.argsort((words[:, 0] << 31) ^ words[:, 1], stable=True)
