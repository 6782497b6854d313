"""Downsampled pixels as features: a distance for when no trained extractor is at hand, or none fits."""

from __future__ import annotations

import hashlib

from torch import Tensor

from diffcli.evaluation.features import Features
from diffcli.images.conversion import from_uint8
from diffcli.images.resize import area_downsampled

# few enough numbers for a covariance that some hundred images determine
_SIDE = 8


class PixelFeatures:
    """Means over areas, 8x8 for each channel, or the pixels themselves. Implements `FeatureExtractor`."""

    name = "pixels"
    spatial_dimensions = None

    def __init__(self, *, resolution: int, channels: int) -> None:
        """resolution: height and width of the images, pixels."""
        self._side = min(_SIDE, resolution)
        self.dimensions = channels * self._side**2
        rule = f"area means of {resolution}x{resolution}x{channels} on {self._side}x{self._side}"
        self.digest = hashlib.sha256(rule.encode()).hexdigest()

    def __call__(self, images: Tensor) -> Features:
        """As `FeatureExtractor`."""
        pixels = from_uint8(images.permute(0, 3, 1, 2))
        return Features(pooled=area_downsampled(pixels, self._side).flatten(1), spatial=None)

    def probabilities(self, _pooled: Tensor) -> None:
        """As `FeatureExtractor`: there are no classes."""
