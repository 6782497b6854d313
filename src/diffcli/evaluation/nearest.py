"""The nearest stored features to each of some queries, such as the training images nearest to samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcli.errors import UsageError
from diffcli.evaluation.distances import row_blocks, squared_distances

_INDEX_BITS = 32
_INDEX = (1 << _INDEX_BITS) - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """indices: int64 [N, k] into what is stored; distances: float32 [N, k], Euclidean, rising in each row."""

    indices: Tensor
    distances: Tensor


def nearest_neighbours(queries: Tensor, stored: Iterable[Tensor] | Tensor, k: int) -> Neighbours:
    """The k nearest to queries [N, D] of the stored [M, D], which may come in batches.

    Ties go to the lower index. UsageError for fewer than k stored.
    """
    keys = torch.full((len(queries), k), torch.iinfo(torch.int64).max)
    count = 0
    for batch in [stored] if isinstance(stored, Tensor) else stored:
        for columns in row_blocks(len(batch)):
            indices = torch.arange(count + columns.start, count + columns.stop)
            for rows in row_blocks(len(queries)):
                found = _keys(squared_distances(queries[rows], batch[columns]), indices)
                found = found.topk(min(k, found.shape[1]), largest=False, sorted=False).values
                keys[rows] = torch.cat((keys[rows], found), dim=1).topk(k, largest=False).values
        count += len(batch)
    if count < k:
        raise UsageError(
            f"{k} nearest images were asked for, there are {count}",
            remedy="ask for fewer, or give more images to look in",
        )
    squared = (keys >> _INDEX_BITS).int().view(torch.float32)
    return Neighbours(indices=keys & _INDEX, distances=squared.sqrt())


def _keys(squared: Tensor, indices: Tensor) -> Tensor:
    """Distance and index in one integer, int64 [N, M]: floats from 0 on have the order of their bits."""
    return (squared.view(torch.int32).long() << _INDEX_BITS) | indices
