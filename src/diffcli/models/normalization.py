"""Group normalisation (Wu & He 2018) with statistics in single precision, also under autocast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffcli.config.shapes import NORM_GROUPS
from diffcli.models.precision import without_autocast


class GroupNorm(nn.Module):
    """32 groups of channels, each to mean 0 and variance 1 (eps 1e-5), then a gain and a bias per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, h: Tensor) -> Tensor:
        """[B, C, H, W] -> the same, in the dtype of h."""
        return _group_norm(h, NORM_GROUPS, self.weight, self.bias)


class AdaptiveGroupNorm(nn.Module):
    """GroupNorm with a further gain and bias per sample (AdaGN: Dhariwal & Nichol 2021, equation 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """[B, C, H, W], scale and shift [B, C] -> norm(h) * (1 + scale) + shift, in the dtype of h."""
        batch, channels = h.shape[:2]
        gain = self.weight * (1 + scale)
        bias = self.bias * (1 + scale) + shift
        # B samples are one sample with B times the groups: so the kernel applies gain and bias on its way
        joined = h.reshape(1, batch * channels, *h.shape[2:])
        return _group_norm(joined, batch * NORM_GROUPS, gain.flatten(), bias.flatten()).view_as(h)


def _group_norm(h: Tensor, groups: int, gain: Tensor, bias: Tensor) -> Tensor:
    """Group normalisation without a single-precision copy of h where the kernel needs none."""
    # autocast would make the copy on CUDA, and hand on single-precision activations
    with without_autocast(h.device):
        if h.device.type == "cpu":
            return F.group_norm(h, groups, gain, bias)
        if h.device.type == "cuda":
            # sums are single precision inside the kernel, but it takes one dtype only
            return F.group_norm(h, groups, gain.to(h.dtype), bias.to(h.dtype))
        return F.group_norm(h.float(), groups, gain.float(), bias.float()).to(h.dtype)
