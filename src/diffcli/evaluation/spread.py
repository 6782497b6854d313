"""A mean and how far the values that it is made of lie apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The mean of `count` values and their standard deviation (over n, as papers print it).

    std: None for a single value, which says nothing of a spread.
    """

    mean: float
    std: float | None
    count: int


def spread_of(values: Sequence[float]) -> Spread:
    """The spread of one value or more."""
    mean = math.fsum(values) / len(values)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return Spread(mean=mean, std=std if len(values) > 1 else None, count=len(values))
