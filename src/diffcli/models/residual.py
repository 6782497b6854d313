"""The residual block, conditioned on timestep and class (Ho et al. 2020, B; Nichol & Dhariwal 2021, A)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from diffcli.config.sections import ModelConfig
from diffcli.models.dropout import Dropout
from diffcli.models.normalization import AdaptiveGroupNorm, GroupNorm
from diffcli.models.precision import without_autocast

Resize = Callable[[Tensor], Tensor]

# width of the condition embedding, in units of model.channels
EMBEDDING_MULT = 4


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip, steered by the condition; with `resize` it changes the resolution."""

    def __init__(
        self, in_channels: int, out_channels: int, config: ModelConfig, *, resize: Resize | None = None
    ) -> None:
        super().__init__()
        self.resize = resize
        self.norm_1 = GroupNorm(in_channels)
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.condition = nn.Linear(
            EMBEDDING_MULT * config.channels, 2 * out_channels if config.scale_shift else out_channels
        )
        self.norm_2 = AdaptiveGroupNorm(out_channels) if config.scale_shift else GroupNorm(out_channels)
        self.dropout = Dropout(config.dropout)
        self.conv_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_2.weight)
        assert self.conv_2.bias is not None
        nn.init.zeros_(self.conv_2.bias)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """[B, C_in, H, W] and the condition embedding, float32 [B, 4 * channels] -> [B, C_out, H', W']."""
        g = F.silu(self.norm_1(h))
        if self.resize is not None:
            g, h = self.resize(g), self.resize(h)
        g = self._conditioned(self.conv_1(g), embedding)
        g = self.conv_2(self.dropout(F.silu(g)))
        changed: Tensor = self.skip(h) + g
        return changed

    def _conditioned(self, g: Tensor, embedding: Tensor) -> Tensor:
        """The second norm, with the embedding added before it or scaling and shifting after it."""
        # reading the weights as they are is cheaper than casting them for so small a product
        with without_autocast(embedding.device):
            condition: Tensor = self.condition(embedding)
        normed: Tensor
        if isinstance(self.norm_2, AdaptiveGroupNorm):
            normed = self.norm_2(g, *condition.chunk(2, dim=1))
        else:
            normed = self.norm_2(g + condition.to(g.dtype)[:, :, None, None])
        return normed
