"""The Frechet distance of infinitely many samples, extrapolated (Chong and Forsyth, arXiv 1911.07023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffcli.errors import UsageError
from diffcli.evaluation.frechet import FrechetReference
from diffcli.evaluation.moments import Moments, moments_of_rows
from diffcli.randomness.streams import Stream, shuffled

# arXiv 1911.07023: fifteen sizes from 5,000 on, of features with 2048 dimensions
_SIZES = 15
_LEAST_ROWS, _OF_DIMENSIONS = 5000, 2048


@dataclass(frozen=True, kw_only=True)
class ExtrapolatedDistance:
    """The line value + slope / N through the distances of subsets; the value may be negative.

    counts: rows of each subset, rising; distances: their Frechet distances to the reference.
    """

    value: float
    slope: float
    counts: tuple[int, ...]
    distances: tuple[float, ...]


def rows_needed(dimensions: int) -> int:
    """The least samples that a line can be laid through: twice the smallest subset."""
    return 2 * _smallest_subset(dimensions)


def frechet_at_infinity(samples: Tensor, reference: Moments, seed: int) -> ExtrapolatedDistance:
    """The distance that samples float32 [N, D] of growing N tend to, against moments that stay as they are.

    UsageError for fewer than `rows_needed(D)`: with few rows for each dimension the bias is not linear in
    1/N, and the line would end in a number that means nothing.
    """
    count, dimensions = samples.shape
    if count < rows_needed(dimensions):
        raise UsageError(
            f"an extrapolation with {dimensions} features needs {rows_needed(dimensions):,} images or more, "
            f"there are {count:,}",
            remedy="give more images, for example by a larger --num",
        )
    counts = torch.linspace(_smallest_subset(dimensions), count, _SIZES, dtype=torch.float64).round().long()
    factored = FrechetReference(reference)
    distances = [
        factored.distance(
            moments_of_rows(samples, shuffled(seed, Stream.FRECHET_SUBSET, count, step=place)[:size])
        )
        for place, size in enumerate(counts.tolist())
    ]
    # arXiv 1911.07023: the bias is linear in 1/N; least squares
    inverse = 1 / counts.double()
    about_mean = inverse - inverse.mean()
    heights = torch.tensor(distances, dtype=torch.float64)
    slope = float((about_mean * heights).sum() / about_mean.square().sum())
    return ExtrapolatedDistance(
        value=float(heights.mean()) - slope * float(inverse.mean()),
        slope=slope,
        counts=tuple(counts.tolist()),
        distances=tuple(distances),
    )


def _smallest_subset(dimensions: int) -> int:
    return max(_SIZES, -(-_LEAST_ROWS * dimensions // _OF_DIMENSIONS))
