"""The U-Net of Ho et al. 2020; the changes of Nichol & Dhariwal and Dhariwal & Nichol 2021 are options."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from diffcli.config.sections import ModelConfig
from diffcli.config.shapes import level_widths
from diffcli.models.conditioning import UNCONDITIONAL, Conditioning
from diffcli.models.encoder import Encoder, ResidualAttention, attending_levels, resized, self_attention
from diffcli.models.normalization import GroupNorm
from diffcli.models.precision import without_autocast
from diffcli.models.recomputation import called
from diffcli.models.resampling import Upsample, double
from diffcli.models.residual import ResidualBlock


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
        return h if self.upsample is None else resized(self.upsample, h, embedding, recompute=self.recompute)


class UNet(Encoder):
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
        super().__init__(
            config, resolution=resolution, in_channels=in_channels, embedded_classes=embedded_classes
        )
        widths, attends = level_widths(config), attending_levels(config, resolution)
        skip_widths = list(self.map_widths)
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
        encoded = self.encoded(x, t, condition.y)
        h = encoded.middle
        for level in self.up:
            h = level(h, encoded.maps, encoded.embedding)
        # single precision, as in the reference: the loss's own gradient enters here and overflows half first
        with without_autocast(h.device):
            h = h.to(self.conv_out.weight.dtype)
            predicted: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return predicted

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
            blocks.append(
                ResidualAttention(residual, self_attention(config, width, heads) if attend else None)
            )
            below = width
        if is_last:
            return UpLevel(blocks, None, recompute=config.checkpoint_blocks)
        upsample = (
            ResidualBlock(width, width, config, resize=double) if config.resblock_updown else Upsample(width)
        )
        return UpLevel(blocks, upsample, recompute=config.checkpoint_blocks)


def _zero(conv: nn.Conv2d) -> None:
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
