"""Group normalisation with single-precision statistics."""

from __future__ import annotations

from torch import nn

from diffcli.config.shapes import NORM_GROUPS


class GroupNorm(nn.GroupNorm):
    """32 groups, eps 1e-5 (Wu & He 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__(NORM_GROUPS, channels)
