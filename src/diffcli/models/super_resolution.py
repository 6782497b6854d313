"""The U-Net that also sees a small version of the image (Nichol & Dhariwal 2021, appendix A)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcli.config.sections import ModelConfig
from diffcli.models.conditioning import UNCONDITIONAL, Conditioning
from diffcli.models.unet import UNet


class SuperResolutionUNet(UNet):
    """A U-Net that reads the small image, enlarged, as further input channels."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        resolution: int,
        in_channels: int,
        out_channels: int,
        embedded_classes: int,
    ) -> None:
        """in_channels: of one image; the network reads twice as many."""
        super().__init__(
            config,
            resolution=resolution,
            in_channels=2 * in_channels,
            out_channels=out_channels,
            embedded_classes=embedded_classes,
        )

    def forward(self, x: Tensor, t: Tensor, condition: Conditioning = UNCONDITIONAL) -> Tensor:
        """x: [B, C, H, W]; t: [B]; condition.low_res: [B, C, h, w] in [-1, 1] -> [B, C_out, H, W]."""
        assert condition.low_res is not None, "super-resolution needs the small images"
        enlarged = F.interpolate(condition.low_res, x.shape[-2:], mode="bilinear")
        return super().forward(torch.cat((x, enlarged), dim=1), t, condition)
