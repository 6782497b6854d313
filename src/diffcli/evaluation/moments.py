"""Mean and covariance of features, added up as they come."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffcli.errors import CorruptError, UsageError

# enough for the speed of a product, little beside a covariance of 2048 dimensions
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Mean float64 [D] and unbiased (n - 1) covariance float64 [D, D] of `count` features of D dimensions.

    count: 0 where published statistics do not say it.
    """

    count: int
    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        dimensions = len(self.mean)
        assert self.mean.shape == (dimensions,)
        assert self.covariance.shape == (dimensions, dimensions)
        assert self.mean.dtype == self.covariance.dtype == torch.float64

    @property
    def dimensions(self) -> int:
        return len(self.mean)


class StreamingMoments:
    """The moments of features that come batch by batch.

    Rows are folded in by their index, a fixed number at once, so that the same rows in the same order give
    the same bits however they are cut into batches.
    """

    def __init__(self, dimensions: int) -> None:
        self._sums = _Sums(dimensions)
        self._waiting = torch.empty(_ROWS_AT_ONCE, dimensions, dtype=torch.float32)
        self._waiting_rows = 0

    @property
    def count(self) -> int:
        """The rows so far."""
        return self._sums.count + self._waiting_rows

    def add(self, features: Tensor) -> None:
        """Take in the next rows, float32 [N, D]; N may be anything."""
        assert features.shape == (len(features), self._waiting.shape[1])
        assert features.dtype == torch.float32
        taken = 0
        while taken < len(features):
            part = features[taken : taken + _ROWS_AT_ONCE - self._waiting_rows]
            self._waiting[self._waiting_rows : self._waiting_rows + len(part)] = part
            self._waiting_rows += len(part)
            taken += len(part)
            if self._waiting_rows == _ROWS_AT_ONCE:
                self._sums.fold(self._waiting)
                self._waiting_rows = 0

    def moments(self) -> Moments:
        """The moments of all rows so far; more may follow. UsageError for fewer than two rows."""
        if self.count < 2:
            raise UsageError(
                f"a covariance needs two images or more, there are {self.count}",
                remedy="give more images, for example by a larger --num",
            )
        sums = self._sums
        if self._waiting_rows:
            sums = sums.copy()
            sums.fold(self._waiting[: self._waiting_rows])
        if not sums.mean.isfinite().all():
            raise CorruptError(
                "the features of an image are not finite",
                remedy="check the images and the weights that the features come from",
            )
        # the product of a matrix with itself is not symmetric to the last bit
        scatter = torch.add(sums.scatter, sums.scatter.T).div_(2)
        return Moments(count=self.count, mean=sums.mean.clone(), covariance=scatter.div_(self.count - 1))


def moments_of(features: Tensor) -> Moments:
    """The moments of features float32 [N, D]."""
    streaming = StreamingMoments(features.shape[1])
    streaming.add(features)
    return streaming.moments()


def moments_of_rows(features: Tensor, rows: Tensor) -> Moments:
    """The moments of chosen rows, int64 [n], of features float32 [N, D]; a row may occur more than once."""
    streaming = StreamingMoments(features.shape[1])
    for some in torch.split(rows, _ROWS_AT_ONCE):
        streaming.add(features[some])
    return streaming.moments()


class _Sums:
    """Count, mean float64 [D] and scatter float64 [D, D], the sum of (x - mean)(x - mean)^T."""

    def __init__(self, dimensions: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dimensions, dtype=torch.float64)
        self.scatter = torch.zeros(dimensions, dimensions, dtype=torch.float64)

    def copy(self) -> _Sums:
        copied = _Sums(0)
        copied.count, copied.mean, copied.scatter = self.count, self.mean.clone(), self.scatter.clone()
        return copied

    def fold(self, features: Tensor) -> None:
        """Chan, Golub and LeVeque, "Algorithms for computing the sample variance" (1983), equation 2.1."""
        rows = features.double()
        count = self.count + len(rows)
        row_mean = rows.mean(dim=0)
        rows -= row_mean
        self.scatter.addmm_(rows.T, rows)
        shift = row_mean - self.mean
        self.scatter.addr_(shift, shift, alpha=self.count * len(rows) / count)
        self.mean += shift * (len(rows) / count)
        self.count = count
