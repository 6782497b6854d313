"""Bilinear resizing as TensorFlow 1 does it: no half-pixel centres, no antialias.

Every reference number of FID, sFID and IS was made with it, so it is part of their definition. The order of
operations is TensorFlow's too, in its float32: the same pixels to the last bit, whatever the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def tensorflow_resized(images: Tensor, size: int) -> Tensor:
    """Images float32 [N, C, H, W] as [N, C, size, size]; their own size gives them back."""
    wide = _along(images, 3, size)
    return _along(wide.transpose(2, 3), 3, size).transpose(2, 3)


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """Of each new place, its two old ones, int64 [size], and the share of the second, float32 [size]."""

    first: Tensor
    second: Tensor
    share: Tensor


def neighbours(source: int, size: int) -> Neighbours:
    """Between which of `source` pixels along a side each of `size` lies."""
    # TensorFlow's legacy rule: place i lies at i * (source / size); beyond the last pixel it is repeated
    places = torch.arange(size, dtype=torch.float32) * torch.tensor(source / size, dtype=torch.float32)
    first = places.floor()
    return Neighbours(
        first=first.long(),
        second=(first.long() + 1).clamp(max=source - 1),
        share=places - first,
    )


def _along(images: Tensor, dimension: int, size: int) -> Tensor:
    between = neighbours(images.shape[dimension], size)
    first = images.index_select(dimension, between.first.to(images.device))
    second = images.index_select(dimension, between.second.to(images.device))
    # not torch.lerp, which counts from the other end beyond the middle
    return first + (second - first) * between.share.to(images.device)
