"""Squared distances between all pairs of two sets of features, a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

Arithmetic = Literal["float32", "float16"]
Measure = Callable[[Tensor, Tensor], Tensor]

# a block of pairs in double precision: 32 MB
_ROWS_AT_ONCE = 2048
# of |x|^2: features in float32 say nothing of a difference that is a millionth of their length
_SAME = 1e-12


def row_blocks(count: int, first: int = 0) -> Iterator[slice]:
    """Consecutive slices of the rows from `first` to `count`, each small enough for one block."""
    for start in range(first, count, _ROWS_AT_ONCE):
        yield slice(start, min(start + _ROWS_AT_ONCE, count))


def squared_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """|x - y|^2 between rows [N, D] and columns [M, D]: float32 [N, M], 0 for equal ones.

    The products are taken in double precision: in single, what the difference of large sums leaves of a small
    distance is rounding, and would depend on the size of a block and the number of threads.
    """
    x, y = rows.double(), columns.double()
    x_norms, y_norms = torch.linalg.vecdot(x, x)[:, None], torch.linalg.vecdot(y, y)
    distances = torch.addmm(y_norms, x, y.T, alpha=-2).add_(x_norms).float()
    # what is so near has the same length, so that |y|^2 would say the same
    same = distances <= (_SAME * x_norms).float()
    return distances.masked_fill_(same, 0)


def half_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """The same in float16, with sums in single precision: float32 [N, M]."""
    return _half_differences(rows, columns).clamp_(min=0).float()


def measure_for(arithmetic: Arithmetic, rows: Tensor, columns: Tensor) -> Measure:
    """How pairs of these two sets are measured: in float16 only if it was asked for and all are finite."""
    if arithmetic == "float16" and _finite_in_half(rows, columns):
        return half_distances
    return squared_distances


def _half_differences(rows: Tensor, columns: Tensor) -> Tensor:
    """|x|^2 - 2 x y + |y|^2, float16 [N, M]; infinite or NaN where something on the way overflows."""
    x, y = rows.half(), columns.half()
    x_norms, y_norms = (side.square().float().sum(dim=1).half() for side in (x, y))
    products = (x.float() @ y.float().T).half()
    return x_norms[:, None] - 2 * products + y_norms


def _finite_in_half(rows: Tensor, columns: Tensor) -> bool:
    largest = max(float(side.float().square().sum(dim=1).max()) for side in (rows, columns))
    # (|x| + |y|)^2 is at most four times the larger square
    if 4 * largest < torch.finfo(torch.float16).max / 2:
        return True
    return all(
        bool(_half_differences(rows[block], columns[others]).isfinite().all())
        for block in row_blocks(len(rows))
        for others in row_blocks(len(columns))
    )
