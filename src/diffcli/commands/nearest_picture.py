"""A picture of samples beside the training images that are nearest to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffcli.data.dataset import Dataset
from diffcli.errors import UsageError
from diffcli.images.grid import grid, write_png
from diffcli.records.image_evaluations import NearestPair

_PAIRS_PER_ROW = 4
_LEAST_PIXELS = 64


def picture_of(record: Path) -> Path:
    """Where the pairs of a record are drawn."""
    return record.with_suffix(".png")


def check_picture_place(record: Path) -> None:
    """UsageError where a file lies in the place of the picture that is not of the record beside it.

    Of a file that --out names: whatever lies under a run is the run's.
    """
    picture = picture_of(record)
    if picture.exists() and not record.exists():
        raise UsageError(
            f"{picture} is there already, and the nearest images are drawn there",
            where="--out",
            remedy="give another --out, or replace it with --force",
        )


def write_pairs(path: Path, pairs: Sequence[NearestPair], samples: Dataset, training: Dataset) -> None:
    """Each sample with its nearest image to the right of it, closest pairs first; StorageError.

    Nothing where the images of the two sides are of different sizes.
    """
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
