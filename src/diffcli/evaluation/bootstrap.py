"""How far a Frechet distance moves with the draw of its samples (Efron, "Bootstrap methods", 1979)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffcli.evaluation.frechet import FrechetReference
from diffcli.evaluation.moments import Moments, moments_of_rows
from diffcli.randomness.streams import Stream, uniform


def bootstrap_frechet(samples: Tensor, reference: Moments, seed: int, *, resamples: int = 20) -> float:
    """The standard deviation (n - 1) of the distance of samples float32 [N, D] drawn anew with replacement.

    The mean over the resamples is not told: samples that repeat make every distance too large.
    """
    assert resamples > 1
    count = len(samples)
    factored = FrechetReference(reference)
    places = torch.arange(count)
    distances = []
    for resample in range(resamples):
        rows = (uniform(seed, Stream.BOOTSTRAP, places, step=resample)[:, 0] * count).long()
        distances.append(factored.distance(moments_of_rows(samples, rows)))
    return float(torch.tensor(distances, dtype=torch.float64).std())
