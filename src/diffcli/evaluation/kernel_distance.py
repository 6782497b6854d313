"""The kernel distance of Inception features, KID (Binkowski et al., arXiv 1801.01401, section 4)."""

from __future__ import annotations

from torch import Tensor

from diffcli.errors import UsageError
from diffcli.evaluation.spread import Spread, spread_of
from diffcli.randomness.streams import Stream, shuffled


def kernel_distance(
    samples: Tensor, reference: Tensor, seed: int, *, subsets: int = 100, subset_size: int = 1000
) -> Spread:
    """The unbiased squared MMD between samples [M, D] and a reference [N, D], the mean over drawn subsets.

    It may be negative. A set of no more than `subset_size` rows is taken whole; two such make a single
    subset, without a spread.
    """
    if min(len(samples), len(reference)) < 2:
        raise UsageError(
            f"a kernel distance needs two images or more, there are {len(samples)} and {len(reference)}",
            remedy="give more images, for example by a larger --num",
        )
    if max(len(samples), len(reference)) <= subset_size:
        subsets = 1
    return spread_of(
        [
            squared_mmd(
                _subset(samples, subset_size, seed, Stream.KERNEL_SAMPLES, subset),
                _subset(reference, subset_size, seed, Stream.KERNEL_REFERENCE, subset),
            )
            for subset in range(subsets)
        ]
    )


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """Gretton et al., "A kernel two-sample test" (JMLR 2012), equation 3, for x [N, D] and y [M, D]."""
    x, y = x.double(), y.double()
    within_x, within_y, across = polynomial_kernel(x, x), polynomial_kernel(y, y), polynomial_kernel(x, y)
    n, m = across.shape
    return float(
        (within_x.sum() - within_x.trace()) / (n * (n - 1))
        + (within_y.sum() - within_y.trace()) / (m * (m - 1))
        - 2 * across.mean()
    )


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """arXiv 1801.01401, section 4: (x . y / D + 1)^3 for x [N, D] and y [M, D], [N, M]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _subset(features: Tensor, size: int, seed: int, stream: Stream, subset: int) -> Tensor:
    if len(features) <= size:
        return features
    return features[shuffled(seed, stream, len(features), step=subset)[:size]]
