"""Self-attention between the pixels of a feature map (Vaswani et al. 2017; Ho et al. 2020, appendix B)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from diffcli.config.sections import AttentionOrder
from diffcli.models.normalization import GroupNorm


class AttentionBlock(nn.Module):
    """h + attention(norm(h)), over all T = H*W pixels at once."""

    def __init__(self, channels: int, *, heads: int, order: AttentionOrder) -> None:
        """order: rows of qkv laid out as [heads, 3, d] (heads_first) or [3, heads, d] (qkv_first)."""
        super().__init__()
        assert channels % heads == 0
        self.heads = heads
        self.order = order
        self.norm = GroupNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, h: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        batch, channels, height, width = h.shape
        tokens = self.norm(h).flatten(2).transpose(1, 2)  # [B, T, C]
        query, key, value = self._split(self.qkv(tokens))
        attended = F.scaled_dot_product_attention(query, key, value)  # [B, heads, T, d]
        joined = self.out(attended.transpose(1, 2).reshape(batch, height * width, channels))
        attention: Tensor = joined.transpose(1, 2).reshape(batch, channels, height, width)
        return h + attention

    def _split(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """[B, T, 3C] -> query, key, value: [B, heads, T, d] with d contiguous, as fast kernels need it."""
        batch, length, _ = qkv.shape
        if self.order == "heads_first":
            query_key_value = qkv.view(batch, length, self.heads, 3, -1).permute(3, 0, 2, 1, 4)
        else:
            query_key_value = qkv.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return query_key_value.unbind(0)
