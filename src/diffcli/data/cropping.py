"""Stored pixels at the size the network takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcli.config.sections import DataConfig
from diffcli.images.resize import Crop, Size, center_crop, cropped_square


def cropped(images: NDArray[np.uint8], crops: Sequence[Crop], config: DataConfig) -> NDArray[np.uint8]:
    """Each image under its own crop: uint8 [N, H, W, C] -> [N, r, r, C], r = data.resolution."""
    return np.stack([_cropped(pixels, crop, config) for pixels, crop in zip(images, crops, strict=True)])


def centered(images: NDArray[np.uint8], config: DataConfig) -> NDArray[np.uint8]:
    """The central squares: uint8 [N, H, W, C] -> [N, r, r, C]; no copy of images that are that size."""
    size = Size(images.shape[2], images.shape[1])
    if size == (config.resolution, config.resolution):
        return images
    return cropped(images, [center_crop(size, config.resolution)] * len(images), config)


def _cropped(pixels: NDArray[np.uint8], crop: Crop, config: DataConfig) -> NDArray[np.uint8]:
    channels = pixels.shape[2]
    image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    return cropped_square(image, config.resolution, crop, recipe=config.resize_recipe, channels=channels)
