"""A dataset as a network sees it that is trained on the middle of larger images."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from diffcli.config.sections import DataConfig
from diffcli.data.cropping import centered
from diffcli.data.dataset import Dataset


class CenteredDataset:
    """Images of another dataset, cut in the middle to the configured resolution. Implements `Dataset`."""

    def __init__(self, dataset: Dataset, config: DataConfig) -> None:
        self._dataset = dataset
        self._config = config
        self.location = dataset.location
        self.count = dataset.count
        self.height = self.width = config.resolution
        self.channels = dataset.channels
        self.class_names = dataset.class_names
        rule = f"the middle at {config.resolution} by {config.resize_recipe}"
        self.content_hash = _ruled(dataset.content_hash, rule)
        self.identity = _ruled(dataset.identity, rule)
        self.weak_hash = dataset.weak_hash

    def read(self, indices: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `Dataset`."""
        squares = centered(self._dataset.read(indices), self._config)
        if out is None:
            return squares
        out[...] = squares
        return out

    def labels(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """As `Dataset`."""
        return self._dataset.labels(indices)


def _ruled(digest: str, rule: str) -> str:
    return hashlib.sha256(f"{digest}, {rule}".encode()).hexdigest()
