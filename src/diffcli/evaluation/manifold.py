"""How far two sets of features lie in each other's neighbourhoods: precision, recall, density, coverage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffcli.errors import UsageError
from diffcli.evaluation.distances import Arithmetic, measure_for, row_blocks, squared_distances


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """The share of samples on the reference's manifold, and of reference images on the samples'."""

    precision: float
    recall: float


@dataclass(frozen=True, kw_only=True)
class DensityCoverage:
    """Reference neighbourhoods around a sample, over k (may be above 1), and the share of them in use."""

    density: float
    coverage: float


def manifold_radii(features: Tensor, k: int, arithmetic: Arithmetic = "float32") -> Tensor:
    """The squared distance from each of features [N, D] to its k-th neighbour in the set: float32 [N].

    Each is its own nearest, at 0. UsageError for fewer than k + 1 features.
    """
    if len(features) <= k:
        raise UsageError(
            f"neighbourhoods of {k} others need {k + 1} images or more, there are {len(features)}",
            remedy="give more images, for example by a larger --num",
        )
    measure = measure_for(arithmetic, features, features)
    nearest = torch.full((len(features), k + 1), torch.inf)
    for rows in row_blocks(len(features)):
        for columns in row_blocks(len(features), rows.start):
            distances = measure(features[rows], features[columns])
            nearest[rows] = _smallest(nearest[rows], distances)
            if columns != rows:
                nearest[columns] = _smallest(nearest[columns], distances.T.contiguous())
    return nearest[:, k]


def precision_recall(
    reference: Tensor, samples: Tensor, k: int = 3, arithmetic: Arithmetic = "float32"
) -> PrecisionRecall:
    """Precision and recall of samples [M, D] against a reference [N, D] (arXiv 1904.06991).

    arithmetic: float16 takes the distances between two sets in half precision if all are finite there, as the
    papers' evaluation did; for comparison with it.
    """
    reference_radii = manifold_radii(reference, k, arithmetic)
    sample_radii = manifold_radii(samples, k, arithmetic)
    measure = measure_for(arithmetic, reference, samples)
    samples_inside = torch.zeros(len(samples), dtype=torch.bool)
    reference_inside = torch.zeros(len(reference), dtype=torch.bool)
    for rows in row_blocks(len(reference)):
        for columns in row_blocks(len(samples)):
            distances = measure(reference[rows], samples[columns])
            # arXiv 1904.06991, equation 1: inside at least one ball, its surface included
            samples_inside[columns] |= (distances <= reference_radii[rows, None]).any(dim=0)
            reference_inside[rows] |= (distances <= sample_radii[columns]).any(dim=1)
    # arXiv 1904.06991, equation 2
    return PrecisionRecall(precision=_share(samples_inside), recall=_share(reference_inside))


def density_coverage(reference: Tensor, samples: Tensor, k: int = 5) -> DensityCoverage:
    """Density and coverage of samples [M, D] against a reference [N, D] (Naeem et al., arXiv 2002.09797)."""
    radii = manifold_radii(reference, k)
    inside_count = 0
    covered = torch.zeros(len(reference), dtype=torch.bool)
    for rows in row_blocks(len(reference)):
        for columns in row_blocks(len(samples)):
            inside = squared_distances(reference[rows], samples[columns]) <= radii[rows, None]
            inside_count += int(inside.sum())
            covered[rows] |= inside.any(dim=1)
    # arXiv 2002.09797, the definitions of density and of coverage
    return DensityCoverage(density=inside_count / (k * len(samples)), coverage=_share(covered))


def _smallest(nearest: Tensor, distances: Tensor) -> Tensor:
    """The smallest of each row of two together, in rising order, as many as the first has columns."""
    count = nearest.shape[1]
    found = distances.topk(min(count, distances.shape[1]), largest=False, sorted=False).values
    return torch.cat((nearest, found), dim=1).topk(count, largest=False).values


def _share(flags: Tensor) -> float:
    return int(flags.sum()) / len(flags)
