"""The U-Net of Ho et al. 2020; the changes of Nichol & Dhariwal and Dhariwal & Nichol 2021 are options."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffcli.config.sections import ModelConfig
from diffcli.config.shapes import level_sizes, level_widths
from diffcli.models.attention import AttentionBlock
from diffcli.models.conditioning import UNCONDITIONAL, Conditioning
from diffcli.models.embedding import ConditionEmbedding
from diffcli.models.normalization import GroupNorm
from diffcli.models.precision import without_autocast
from diffcli.models.recomputation import called
from diffcli.models.resampling import Downsample, Upsample, double, halve
from diffcli.models.residual import EMBEDDING_MULT, ResidualBlock


class ResidualAttention(nn.Module):
    """A residual block and, in the levels that have it, attention."""

    def __init__(self, residual: ResidualBlock, attention: AttentionBlock | None) -> None:
        super().__init__()
        self.residual = residual
        self.attention = attention

    def forward(self, h: Tensor, embedding: Tensor, skip: Tensor | None = None) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, H, W]; the channels of a skip are read after those of h."""
        if skip is not None:
            h = torch.cat((h, skip), dim=1)
        h = self.residual(h, embedding)
        return h if self.attention is None else self.attention(h)


class DownLevel(nn.Module):
    """The blocks of one resolution on the way down and, but for the last level, the halving after them."""

    def __init__(
        self,
        blocks: list[ResidualAttention],
        downsample: Downsample | ResidualBlock | None,
        *,
        recompute: bool,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.recompute = recompute

    def forward(self, h: Tensor, embedding: Tensor) -> list[Tensor]:
        """Every feature map that this level makes, in order: the skips of the way up."""
        made = []
        for block in self.blocks:
            h = called(block, h, embedding, recompute=self.recompute)
            made.append(h)
        if self.downsample is not None:
            made.append(_resized(self.downsample, h, embedding, recompute=self.recompute))
        return made


class Middle(nn.Module):
    """Residual block, attention, residual block at the smallest resolution."""

    def __init__(self, before: ResidualBlock, attention: AttentionBlock, after: ResidualBlock) -> None:
        super().__init__()
        self.before = before
        self.attention = attention
        self.after = after

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        changed: Tensor = self.after(self.attention(self.before(h, embedding)), embedding)
        return changed


class UpLevel(nn.Module):
    """The blocks of one resolution on the way up and, but for the last level, the doubling after them."""

    def __init__(
        self,
        blocks: list[ResidualAttention],
        upsample: Upsample | ResidualBlock | None,
        *,
        recompute: bool,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.upsample = upsample
        self.recompute = recompute

    def forward(self, h: Tensor, skips: list[Tensor], embedding: Tensor) -> Tensor:
        """Each block takes the newest skip off the list and reads it after h."""
        for block in self.blocks:
            h = called(block, h, embedding, skips.pop(), recompute=self.recompute)
        return h if self.upsample is None else _resized(self.upsample, h, embedding, recompute=self.recompute)


class UNet(nn.Module):
    """Reads a noisy image and its timestep, predicts what the diffusion asks of it."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        resolution: int,
        in_channels: int,
        out_channels: int,
        embedded_classes: int,
    ) -> None:
        """resolution: of the images, pixels; it decides, with attention_resolutions, which levels attend.

        embedded_classes: that the network can be told, "no class" among them; 0: none.
        """
        super().__init__()
        self.config = config
        widths = level_widths(config)
        attends = [size in config.attention_resolutions for size in level_sizes(config, resolution)]
        self.embedding = ConditionEmbedding(
            config.channels, EMBEDDING_MULT * config.channels, classes=embedded_classes
        )
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        skip_widths = [widths[0]]
        self.down = nn.ModuleList()
        for width, attend in zip(widths, attends, strict=True):
            is_last = len(self.down) == len(widths) - 1
            self.down.append(self._down_level(width, skip_widths, attend=attend, is_last=is_last))
        self.middle = Middle(
            ResidualBlock(widths[-1], widths[-1], config),
            self._attention(widths[-1], config.heads),
            ResidualBlock(widths[-1], widths[-1], config),
        )
        self.up = nn.ModuleList()
        below = widths[-1]
        for width, attend in zip(reversed(widths), reversed(attends), strict=True):
            is_last = len(self.up) == len(widths) - 1
            self.up.append(self._up_level(below, width, skip_widths, attend=attend, is_last=is_last))
            below = width
        self.norm_out = GroupNorm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)
        _zero(self.conv_out)

    def forward(self, x: Tensor, t: Tensor, condition: Conditioning = UNCONDITIONAL) -> Tensor:
        """x: [B, C, H, W]; t: int64 or float32 [B], as the diffusion rescaled it -> [B, C_out, H, W]."""
        embedding = self.embedding(t, condition.y)
        h = self.conv_in(x)
        skips = [h]
        for level in self.down:
            skips += level(skips[-1], embedding)
        h = called(self.middle, skips[-1], embedding, recompute=self.config.checkpoint_blocks)
        for level in self.up:
            h = level(h, skips, embedding)
        # single precision, as in the reference: the loss's own gradient enters here and overflows half first
        with without_autocast(h.device):
            h = h.to(self.conv_out.weight.dtype)
            predicted: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return predicted

    def _down_level(self, width: int, skip_widths: list[int], *, attend: bool, is_last: bool) -> DownLevel:
        """One level of the way down; notes the width of every feature map it makes in `skip_widths`."""
        config = self.config
        blocks = []
        for _ in range(config.res_blocks):
            residual = ResidualBlock(skip_widths[-1], width, config)
            blocks.append(
                ResidualAttention(residual, self._attention(width, config.heads) if attend else None)
            )
            skip_widths.append(width)
        if is_last:
            return DownLevel(blocks, None, recompute=config.checkpoint_blocks)
        skip_widths.append(width)
        downsample = (
            ResidualBlock(width, width, config, resize=halve) if config.resblock_updown else Downsample(width)
        )
        return DownLevel(blocks, downsample, recompute=config.checkpoint_blocks)

    def _up_level(
        self, below: int, width: int, skip_widths: list[int], *, attend: bool, is_last: bool
    ) -> UpLevel:
        """One level of the way up; takes the widths of the skips it reads off `skip_widths`."""
        config = self.config
        heads = config.heads_up or config.heads
        blocks = []
        # one block more than on the way down: the level also reads the map that came into it from above
        for _ in range(config.res_blocks + 1):
            residual = ResidualBlock(below + skip_widths.pop(), width, config)
            blocks.append(ResidualAttention(residual, self._attention(width, heads) if attend else None))
            below = width
        if is_last:
            return UpLevel(blocks, None, recompute=config.checkpoint_blocks)
        upsample = (
            ResidualBlock(width, width, config, resize=double) if config.resblock_updown else Upsample(width)
        )
        return UpLevel(blocks, upsample, recompute=config.checkpoint_blocks)

    def _attention(self, width: int, heads: int) -> AttentionBlock:
        if self.config.head_channels:
            heads = width // self.config.head_channels
        return AttentionBlock(width, heads=heads, order=self.config.attention_order)


def _resized(layer: nn.Module, h: Tensor, embedding: Tensor, *, recompute: bool) -> Tensor:
    if isinstance(layer, ResidualBlock):
        return called(layer, h, embedding, recompute=recompute)
    return called(layer, h, recompute=recompute)


def _zero(conv: nn.Conv2d) -> None:
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
