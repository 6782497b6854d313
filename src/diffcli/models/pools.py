"""From the feature maps of an encoder to the logits of a classifier (Dhariwal & Nichol 2021, section 4).

Each pool computes in single precision, as in the reference: what it reads is small.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffcli.models.encoder import Encoded
from diffcli.models.normalization import GroupNorm

# width of the hidden layer of both spatial pools
_HIDDEN_WIDTH = 2048


class AdaptivePool(nn.Module):
    """Mean over all pixels of the middle's feature map."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = GroupNorm(width)
        self.out = nn.Linear(width, classes)
        # all classes are equally likely at first
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, encoded: Encoded) -> Tensor:
        """Logits, [B, classes]."""
        h = encoded.middle.to(self.out.weight.dtype)
        logits: Tensor = self.out(F.silu(self.norm(h)).mean((2, 3)))
        return logits


class AttentionPool(nn.Module):
    """What the mean pixel of the middle's feature map finds when it attends to all of them.

    Radford et al. 2021 (CLIP), section 2.4.
    """

    def __init__(self, width: int, classes: int, *, size: int, heads: int) -> None:
        """size: height and width of the feature map, pixels."""
        super().__init__()
        assert width % heads == 0
        self.heads = heads
        self.norm = GroupNorm(width)
        self.tokens = _PositionedTokens(width, size)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, classes)

    def forward(self, encoded: Encoded) -> Tensor:
        """Logits, [B, classes]."""
        h = encoded.middle.to(self.out.weight.dtype)
        tokens = self.tokens(F.silu(self.norm(h)))
        batch, length, _ = tokens.shape
        # rows of the projection: heads within q, k, v, whatever model.attention_order says
        qkv = self.qkv(tokens).view(batch, length, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [B, heads, 1 + T, d]
        # nobody reads what the other tokens would find
        found = F.scaled_dot_product_attention(query[:, :, :1], key, value)  # [B, heads, 1, d]
        logits: Tensor = self.out(found.flatten(1))
        return logits


class _PositionedTokens(nn.Module):
    """The pixels of a feature map behind their mean, each with what it learned of its position."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(width, 1 + size**2) / width**0.5)

    def forward(self, h: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 1 + H*W, C]."""
        pixels = h.flatten(2)
        tokens = torch.cat((pixels.mean(2, keepdim=True), pixels), dim=2) + self.positional_embedding
        return tokens.transpose(1, 2)


class SpatialPool(nn.Module):
    """Means over the pixels of every feature map, through one hidden layer."""

    def __init__(self, map_widths: list[int], classes: int) -> None:
        """map_widths: channels of every feature map of the encoder, the middle's last."""
        super().__init__()
        self.hidden = nn.Linear(sum(map_widths), _HIDDEN_WIDTH)
        self.out = nn.Linear(_HIDDEN_WIDTH, classes)

    def forward(self, encoded: Encoded) -> Tensor:
        """Logits, [B, classes]."""
        means = _means_of_all(encoded, self.out.weight.dtype)
        logits: Tensor = self.out(F.relu(self.hidden(means)))
        return logits


class NormedSpatialPool(nn.Module):
    """A spatial pool whose hidden layer is normalised: `spatial_v2`."""

    def __init__(self, map_widths: list[int], classes: int) -> None:
        """map_widths: channels of every feature map of the encoder, the middle's last."""
        super().__init__()
        self.hidden = nn.Linear(sum(map_widths), _HIDDEN_WIDTH)
        self.norm = GroupNorm(_HIDDEN_WIDTH)
        self.out = nn.Linear(_HIDDEN_WIDTH, classes)

    def forward(self, encoded: Encoded) -> Tensor:
        """Logits, [B, classes]."""
        means = _means_of_all(encoded, self.out.weight.dtype)
        logits: Tensor = self.out(F.silu(self.norm(self.hidden(means))))
        return logits


def _means_of_all(encoded: Encoded, dtype: torch.dtype) -> Tensor:
    """The mean of each channel of each feature map, in order: [B, all their channels]."""
    return torch.cat([h.mean((2, 3), dtype=dtype) for h in (*encoded.maps, encoded.middle)], dim=1)
