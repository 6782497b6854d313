"""The way down and the middle of the U-Net of Ho et al. 2020, which a classifier shares.

The changes of Nichol & Dhariwal and of Dhariwal & Nichol 2021 are options.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffcli.config.sections import ModelConfig
from diffcli.config.shapes import level_sizes, level_widths
from diffcli.models.attention import AttentionBlock
from diffcli.models.embedding import ConditionEmbedding
from diffcli.models.recomputation import called
from diffcli.models.resampling import Downsample, halve
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
            made.append(resized(self.downsample, h, embedding, recompute=self.recompute))
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """What the way down and the middle make of an image.

    maps: every feature map of the way down, in order, the skips of a way up; middle: [B, C, H, W], the
    smallest size; embedding: of timestep and class, float32 [B, 4 * channels].
    """

    maps: list[Tensor]
    middle: Tensor
    embedding: Tensor


class Encoder(nn.Module):
    """Embedding, way down and middle; what reads their feature maps is a subclass's."""

    def __init__(
        self, config: ModelConfig, *, resolution: int, in_channels: int, embedded_classes: int
    ) -> None:
        """resolution: of the images, pixels; it decides, with attention_resolutions, which levels attend.

        embedded_classes: of those that the network is told; 0: none.
        """
        super().__init__()
        self.config = config
        widths = level_widths(config)
        self.embedding = ConditionEmbedding(
            config.channels, EMBEDDING_MULT * config.channels, classes=embedded_classes
        )
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        # channels of every feature map of the way down, in order
        self.map_widths = [widths[0]]
        self.down = nn.ModuleList()
        for width, attend in zip(widths, attending_levels(config, resolution), strict=True):
            is_last = len(self.down) == len(widths) - 1
            self.down.append(self._down_level(width, attend=attend, is_last=is_last))
        self.middle = Middle(
            ResidualBlock(widths[-1], widths[-1], config),
            self_attention(config, widths[-1], config.heads),
            ResidualBlock(widths[-1], widths[-1], config),
        )

    def encoded(self, x: Tensor, t: Tensor, y: Tensor | None) -> Encoded:
        """x: [B, C, H, W]; t: int64 or float32 [B]; y: int64 [B] with embedded classes, else None."""
        embedding = self.embedding(t, y)
        maps = [self.conv_in(x)]
        for level in self.down:
            maps += level(maps[-1], embedding)
        middle = called(self.middle, maps[-1], embedding, recompute=self.config.checkpoint_blocks)
        return Encoded(maps=maps, middle=middle, embedding=embedding)

    def _down_level(self, width: int, *, attend: bool, is_last: bool) -> DownLevel:
        """One level of the way down; notes the width of every feature map that it makes."""
        config = self.config
        blocks = []
        for _ in range(config.res_blocks):
            residual = ResidualBlock(self.map_widths[-1], width, config)
            attention = self_attention(config, width, config.heads) if attend else None
            blocks.append(ResidualAttention(residual, attention))
            self.map_widths.append(width)
        if is_last:
            return DownLevel(blocks, None, recompute=config.checkpoint_blocks)
        self.map_widths.append(width)
        downsample = (
            ResidualBlock(width, width, config, resize=halve) if config.resblock_updown else Downsample(width)
        )
        return DownLevel(blocks, downsample, recompute=config.checkpoint_blocks)


def attending_levels(config: ModelConfig, resolution: int) -> list[bool]:
    """Whether each level has self-attention, from the largest feature map to the smallest."""
    return [size in config.attention_resolutions for size in level_sizes(config, resolution)]


def self_attention(config: ModelConfig, width: int, heads: int) -> AttentionBlock:
    """An attention block of that width, with `heads` heads unless the channels of each are set."""
    return AttentionBlock(width, heads=head_count(config, width, heads), order=config.attention_order)


def head_count(config: ModelConfig, width: int, heads: int) -> int:
    """Heads of attention over `width` channels."""
    return width // config.head_channels if config.head_channels else heads


def resized(layer: nn.Module, h: Tensor, embedding: Tensor, *, recompute: bool) -> Tensor:
    """A feature map through the layer that halves or doubles its resolution."""
    if isinstance(layer, ResidualBlock):
        return called(layer, h, embedding, recompute=recompute)
    return called(layer, h, recompute=recompute)
