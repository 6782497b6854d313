"""Halving and doubling the resolution of feature maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def halve(h: Tensor) -> Tensor:
    """Mean of each 2x2 square: [B, C, H, W] -> [B, C, H/2, W/2]."""
    return F.avg_pool2d(h, 2)


def double(h: Tensor) -> Tensor:
    """Each pixel four times: [B, C, H, W] -> [B, C, 2H, 2W]."""
    return F.interpolate(h, scale_factor=2.0, mode="nearest")


class Downsample(nn.Module):
    """A convolution of stride 2: [B, C, H, W] -> [B, C, H/2, W/2]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """Halve the resolution."""
        halved: Tensor = self.conv(h)
        return halved


class Upsample(nn.Module):
    """Nearest neighbours, then a convolution: [B, C, H, W] -> [B, C, 2H, 2W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """Double the resolution."""
        doubled: Tensor = self.conv(double(h))
        return doubled
