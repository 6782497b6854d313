"""The classifier of noisy images that guides a diffusion model (Dhariwal & Nichol 2021, section 4)."""

from __future__ import annotations

from torch import Tensor, nn

from diffcli.config.sections import ModelConfig
from diffcli.config.shapes import level_sizes, level_widths
from diffcli.models.encoder import Encoder, head_count
from diffcli.models.pools import AdaptivePool, AttentionPool, NormedSpatialPool, SpatialPool
from diffcli.models.precision import without_autocast


class Classifier(Encoder):
    """Reads a noisy image and its timestep, tells the class of the image."""

    def __init__(self, config: ModelConfig, *, resolution: int, in_channels: int) -> None:
        """resolution: of the images, pixels; it decides, with attention_resolutions, which levels attend."""
        super().__init__(config, resolution=resolution, in_channels=in_channels, embedded_classes=0)
        self.pool = self._pool(resolution)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: [B, C, H, W]; t: int64 or float32 [B], as the diffusion rescaled it -> logits [B, classes]."""
        encoded = self.encoded(x, t, None)
        with without_autocast(x.device):
            logits: Tensor = self.pool(encoded)
        return logits

    def _pool(self, resolution: int) -> nn.Module:
        config = self.config
        width, size = level_widths(config)[-1], level_sizes(config, resolution)[-1]
        match config.pool:
            case "attention":
                heads = head_count(config, width, config.heads)
                return AttentionPool(width, config.classes, size=size, heads=heads)
            case "adaptive":
                return AdaptivePool(width, config.classes)
            case "spatial":
                return SpatialPool([*self.map_widths, width], config.classes)
            case "spatial_v2":
                return NormedSpatialPool([*self.map_widths, width], config.classes)
