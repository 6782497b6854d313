"""The only conversion between stored uint8 pixels and the network's numbers in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def from_uint8(images: Tensor) -> Tensor:
    """uint8 of any shape -> float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Floats of any shape, meant for [-1, 1] -> uint8; clamps, then truncates as the reference does."""
    return ((images + 1) * 127.5).clamp(0, 255).to(torch.uint8)
