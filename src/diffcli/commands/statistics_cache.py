"""Statistics of a prepared dataset, kept beside it, so that its features are worked out once."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from diffcli import durable
from diffcli.data.image_sets import ImageSet
from diffcli.errors import StorageError
from diffcli.evaluation.moments import Moments
from diffcli.evaluation.set_statistics import SetStatistics
from diffcli.models.tensor_file import load_tensors

_DIRECTORY = ".statistics"
_POOLED, _SPATIAL, _ROWS, _COUNT = "pooled", "spatial", "rows", "count"


def cache_file(images: ImageSet, key: str) -> Path | None:
    """Where statistics of a prepared dataset are kept, beside its splits; None for other images.

    key: a digest of all that decides them.
    """
    if images.kind != "prepared dataset":
        return None
    location = images.dataset.location
    return location.parent / _DIRECTORY / f"{location.name}-{key[:32]}.safetensors"


def read_cached(path: Path) -> SetStatistics | None:
    """What is kept in the file; None when there is nothing, or it cannot be read."""
    try:
        tensors = load_tensors(path)
        count = int(tensors[_COUNT])
        return SetStatistics(
            pooled=_moments(tensors, _POOLED, count),
            spatial=_moments(tensors, _SPATIAL, count),
            rows=tensors[_ROWS],
        )
    except (OSError, SafetensorError, KeyError):
        return None


def write_cached(path: Path, statistics: SetStatistics) -> None:
    """Keep statistics of images; where nothing can be written, nothing is."""
    assert statistics.rows is not None
    # of a single image there are no moments
    count = 1 if statistics.pooled is None else statistics.pooled.count
    tensors = {_COUNT: torch.tensor(count), _ROWS: statistics.rows.contiguous()}
    for name, moments in ((_POOLED, statistics.pooled), (_SPATIAL, statistics.spatial)):
        if moments is not None:
            tensors[f"{name}.mean"], tensors[f"{name}.covariance"] = moments.mean, moments.covariance
    with contextlib.suppress(StorageError), durable.storage_errors(path):
        path.parent.mkdir(exist_ok=True)
        durable.write_bytes(path, save(tensors))


def _moments(tensors: dict[str, Tensor], name: str, count: int) -> Moments | None:
    if f"{name}.mean" not in tensors:
        return None
    return Moments(count=count, mean=tensors[f"{name}.mean"], covariance=tensors[f"{name}.covariance"])
