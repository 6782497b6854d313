"""A curve as lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from diffcli.console.numbers import significant

# an eighth of a line each; and for terminals that have no such letters
EIGHTHS, PLAIN_EIGHTHS = " ▁▂▃▄▅▆▇█", " ......:#"


@dataclass(frozen=True, kw_only=True)
class ChartSize:
    """Letters across and lines down, at least two, of the columns alone."""

    columns: int
    lines: int


def logarithmic_chart(values: Sequence[float], size: ChartSize, *, eighths: str = EIGHTHS) -> list[str]:
    """Columns over a logarithmic axis, with its two ends on the left; none for values that have no such axis.

    Where there are more values than columns, a column is the mean of its neighbours. What is not finite, and
    whatever is not above zero, has no column.
    """
    means = _column_means(values, size.columns)
    positive = [mean for mean in means if 0 < mean < math.inf]
    if not positive:
        return []
    low, high = min(positive), max(positive)
    # the lowest column is a line's eighth, so that it is seen
    span = math.log(high / low) or 1.0
    heights = [
        1 + round(math.log(mean / low) / span * (8 * size.lines - 1)) if 0 < mean < math.inf else 0
        for mean in means
    ]
    ends = {size.lines - 1: significant(high), 0: significant(low)}
    width = max(map(len, ends.values()))
    return [
        f"{ends.get(line, ''):>{width}} {_line(heights, line, eighths)}"
        for line in reversed(range(size.lines))
    ]


def _column_means(values: Sequence[float], columns: int) -> list[float]:
    count = min(len(values), columns)
    bounds = [len(values) * column // count for column in range(count + 1)] if count else [0]
    return [sum(values[first:last]) / (last - first) for first, last in pairwise(bounds)]


def _line(heights: Sequence[int], line: int, eighths: str) -> str:
    return "".join(eighths[min(max(height - 8 * line, 0), 8)] for height in heights).rstrip()
