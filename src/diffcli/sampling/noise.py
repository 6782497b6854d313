"""The random numbers of a sample: functions of the seed and of its index, so no sample depends on others."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from diffcli.randomness.streams import Stream, derived_seed, normal, uniform


def initial_noise(seed: int, samples: Tensor, shape: Sequence[int]) -> Tensor:
    """x_T of the samples: float32 [N, *shape], standard normal, for indices int64 [N], on their device."""
    return normal(seed, Stream.INITIAL_NOISE, samples, shape, step=0)


def step_noise(seed: int, samples: Tensor, shape: Sequence[int], *, step: int) -> Tensor:
    """The noise of the samples at an internal step: float32 [N, *shape], as that of `initial_noise`."""
    return normal(seed, Stream.STEP_NOISE, samples, shape, step=step)


def enlarging_seed(seed: int, low_resolution: int) -> int:
    """The seed of the noise that enlarges images of a size: the small ones may have been drawn of `seed`."""
    return derived_seed(seed, Stream.ENLARGING, step=low_resolution, item=0)


def sample_classes(seed: int, samples: Tensor, classes: int) -> Tensor:
    """The classes drawn for the samples: int64 [N] in 0..classes-1, for indices int64 [N] on the CPU."""
    return (uniform(seed, Stream.SAMPLE_CLASS, samples, step=0)[:, 0] * classes).long()
