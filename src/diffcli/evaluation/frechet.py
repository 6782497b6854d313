"""The Frechet distance between two Gaussians (Heusel et al., arXiv 1706.08500, equation 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffcli.errors import UsageError
from diffcli.evaluation.moments import Moments


class FrechetReference:
    """Moments whose covariance is factored once, for any number of distances to it."""

    def __init__(self, moments: Moments) -> None:
        self._moments = moments
        # S = A A^T, with a column for each eigenvalue above the rounding of the largest
        values, vectors = torch.linalg.eigh(moments.covariance)
        kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
        self._factor = vectors[:, kept] * values[kept].sqrt()

    def distance(self, other: Moments) -> float:
        """The squared distance to other moments of the same dimensions, at least 0."""
        mean, covariance = self._moments.mean, self._moments.covariance
        if other.dimensions != len(mean):
            raise UsageError(
                f"features of {other.dimensions} and {len(mean)} dimensions cannot be compared",
                remedy="take both sets of features from the same network",
            )
        # S1 S2 and A^T S2 A have the same eigenvalues but for zeros, and the second is symmetric
        values = torch.linalg.eigvalsh(self._factor.T @ other.covariance @ self._factor)
        # arXiv 1706.08500, equation 6; what rounding makes negative is zero
        between_means = (mean - other.mean).square().sum()
        traces = covariance.trace() + other.covariance.trace()
        return max(0.0, float(between_means + traces - 2 * values.clamp(min=0).sqrt().sum()))


def frechet_distance(first: Moments, second: Moments) -> float:
    """The squared Frechet distance between Gaussians of two moments of the same dimensions, at least 0."""
    return FrechetReference(first).distance(second)


def frechet_distance_of_features(first: Tensor, second: Tensor) -> float:
    """The same distance from features [N, D] and [M, D], N and M at least 2, without a covariance.

    Exact where there are fewer rows than dimensions, and fast there; with many more rows, moments are faster.
    """
    if min(len(first), len(second)) < 2:
        raise UsageError(
            f"a covariance needs two images or more, there are {len(first)} and {len(second)}",
            remedy="give more images, for example by a larger --num",
        )
    first_mean, first_rows = _centred(first)
    second_mean, second_rows = _centred(second)
    # with S = X^T X, the trace of (S1 S2)^(1/2) is the nuclear norm of X1 X2^T
    trace = torch.linalg.svdvals(first_rows @ second_rows.T).sum()
    # arXiv 1706.08500, equation 6
    between_means = (first_mean - second_mean).square().sum()
    return max(0.0, float(between_means + first_rows.square().sum() + second_rows.square().sum() - 2 * trace))


def _centred(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean float64 [D], and X float64 [N, D] with X^T X the covariance."""
    rows = features.double()
    mean = rows.mean(dim=0)
    rows = rows - mean
    return mean, rows / (len(rows) - 1) ** 0.5
