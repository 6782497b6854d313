"""What is kept of the features of a whole set of images, however many they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffcli.evaluation.features import Features
from diffcli.evaluation.moments import Moments, StreamingMoments


@dataclass(frozen=True, kw_only=True, eq=False)
class SetStatistics:
    """Moments of all images, and the pooled features of some, float32 [M, D] in their order.

    None: not known, or there are none, as of a single image.
    """

    pooled: Moments | None
    spatial: Moments | None
    rows: Tensor | None


class StatisticsBuilder:
    """Takes the features of images 0, 1, ... in order, in batches of any size."""

    def __init__(self, *, dimensions: int, spatial_dimensions: int | None, rows: Tensor) -> None:
        """rows: int64 [M], rising: the images whose features are kept."""
        self._pooled = StreamingMoments(dimensions)
        self._spatial = None if spatial_dimensions is None else StreamingMoments(spatial_dimensions)
        self._wanted = rows
        self._rows = torch.empty(len(rows), dimensions)
        self._taken = self._kept = 0

    def add(self, features: Features) -> None:
        """The features of the next images."""
        pooled = features.pooled
        self._pooled.add(pooled)
        if self._spatial is not None:
            assert features.spatial is not None
            self._spatial.add(features.spatial)
        end = int(torch.searchsorted(self._wanted, self._taken + len(pooled)))
        chosen = self._wanted[self._kept : end] - self._taken
        self._rows[self._kept : end] = pooled[chosen]
        self._taken, self._kept = self._taken + len(pooled), end

    def statistics(self) -> SetStatistics:
        """Of all that was taken."""
        assert self._kept == len(self._wanted)
        return SetStatistics(pooled=_moments(self._pooled), spatial=_moments(self._spatial), rows=self._rows)


def _moments(streaming: StreamingMoments | None) -> Moments | None:
    return streaming.moments() if streaming is not None and streaming.count > 1 else None


def evenly_spaced(count: int, most: int) -> Tensor:
    """At most `most` of 0..count-1, int64, rising: all, or spread so that a sorted set is taken fairly."""
    chosen = min(count, most)
    return torch.arange(chosen) * count // max(1, chosen)
