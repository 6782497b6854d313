"""A picture of samples beside the training images that are nearest to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffcli.data.dataset import Dataset
from diffcli.images.grid import grid, write_png
from diffcli.records.image_evaluations import NearestPair

_PAIRS_PER_ROW = 4
_LEAST_PIXELS = 64


def write_pairs(path: Path, pairs: Sequence[NearestPair], samples: Dataset, training: Dataset) -> None:
    """Each sample with its nearest image to the right of it, closest pairs first; StorageError."""
    left = samples.read(np.array([pair.sample for pair in pairs]))
    right = training.read(np.array([pair.training for pair in pairs]))
    channels = max(left.shape[3], right.shape[3])
    shape = (*left.shape[1:3], channels)
    if right.shape[1:3] != left.shape[1:3]:
        return
    both = np.stack([np.broadcast_to(side, (len(pairs), *shape)) for side in (left, right)], axis=1)
    sheet = grid(
        both.reshape(-1, *shape), columns=2 * _PAIRS_PER_ROW, magnify=max(1, _LEAST_PIXELS // shape[0])
    )
    write_png(path, sheet)
