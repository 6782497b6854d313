"""The Inception Score (Salimans et al., arXiv 1606.03498, section 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffcli.errors import UsageError
from diffcli.evaluation.spread import Spread, spread_of


class InceptionScore:
    """The score of class probabilities that come batch by batch.

    The images are cut into consecutive parts of `split`, of which the last may be shorter, and are not
    shuffled: images that lie sorted by class score too low.
    """

    def __init__(self, split: int = 5000) -> None:
        assert split > 0
        self._split = split
        self._scores: list[float] = []
        self._part = _Part()

    def add(self, probabilities: Tensor) -> None:
        """Take in p(y|x) of the next images, float [N, K], each row a distribution; N may be anything."""
        taken = 0
        while taken < len(probabilities):
            rows = probabilities[taken : taken + self._split - self._part.count]
            self._part.add(rows)
            taken += len(rows)
            if self._part.count == self._split:
                self._scores.append(self._part.score())
                self._part = _Part()

    def score(self) -> Spread:
        """The plain mean over the parts, and their spread; more may follow. UsageError without any image."""
        scores = [*self._scores, *([self._part.score()] if self._part.count else [])]
        if not scores:
            raise UsageError("an Inception Score needs images", remedy="give at least one image")
        return spread_of(scores)


class _Part:
    """Sums over the images of one part, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self._probabilities: Tensor | float = 0.0
        self._negative_entropy = 0.0

    def add(self, rows: Tensor) -> None:
        probabilities = rows.double()
        self._probabilities = self._probabilities + probabilities.sum(dim=0)
        self._negative_entropy += _sum_p_log_p(probabilities)
        self.count += len(rows)

    def score(self) -> float:
        """exp(E_x KL(p(y|x) || p(y))), whose mean is a difference of two sums."""
        assert isinstance(self._probabilities, Tensor)
        marginal = self._probabilities / self.count
        # arXiv 1606.03498, section 4
        return math.exp(self._negative_entropy / self.count - _sum_p_log_p(marginal))


def _sum_p_log_p(probabilities: Tensor) -> float:
    """With 0 log 0 = 0."""
    return float(torch.special.xlogy(probabilities, probabilities).sum())
