"""Resize and crop recipes: an image of any size and mode becomes a square of uint8 pixels.

Both recipes halve with a box filter while the shorter side is at least twice the target, then scale
bicubically, then crop. `guided` converts the colours first, `improved` last, so that it filters palette and
1-bit images by nearest neighbour, and images with alpha by premultiplied colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcli.config.sections import ResizeRecipe
from diffcli.errors import CorruptError
from diffcli.images.decode import PIXEL_LIMIT

if TYPE_CHECKING:
    from torch import Tensor

# Random crops show from 80 % to all of the shorter side, as guided-diffusion does.
_SMALLEST_CROP_SHARE = 0.8
_MODES = {1: "L", 3: "RGB"}


class Size(NamedTuple):
    """Width and height, pixels."""

    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A square of a scaled image: the scaled image's shorter side and the square's corner, pixels."""

    side: int
    top: int
    left: int


def center_crop(size: Size, resolution: int) -> Crop:
    """The central square of an image whose shorter side is scaled to the resolution."""
    width, height = scaled_size(size, resolution)
    return Crop(side=resolution, top=(height - resolution) // 2, left=(width - resolution) // 2)


def random_crop_sides(resolution: int) -> range:
    """The lengths that the shorter side may be scaled to before a random crop."""
    return range(resolution, math.ceil(resolution / _SMALLEST_CROP_SHARE) + 1)


def random_crop(size: Size, resolution: int, draws: Sequence[float]) -> Crop:
    """The crop that three uniform numbers in [0, 1) choose: the scale, then y, then x."""
    sides = random_crop_sides(resolution)
    side = sides[int(draws[0] * len(sides))]
    width, height = scaled_size(size, side)
    return Crop(
        side=side,
        top=int(draws[1] * (height - resolution + 1)),
        left=int(draws[2] * (width - resolution + 1)),
    )


def scaled_size(size: Size, side: int) -> Size:
    """The size of an image once its shorter side is `side`."""
    return _sizes_on_the_way(size, side)[-1]


def cropped_square(
    image: Image.Image, resolution: int, crop: Crop, *, recipe: ResizeRecipe, channels: int
) -> NDArray[np.uint8]:
    """Scale and crop an image: uint8 [resolution, resolution, channels]; channels: 1 gray, 3 RGB.

    CorruptError when the image is so elongated that it cannot be scaled in reasonable memory.
    """
    mode = _MODES[channels]
    if recipe == "guided":
        image = _in_mode(image, mode)
    image = _in_mode(_scaled(image, crop.side), mode)
    pixels = np.asarray(image).reshape(image.height, image.width, channels)
    return pixels[crop.top : crop.top + resolution, crop.left : crop.left + resolution]


def boxed_square(image: Image.Image, resolution: int, *, channels: int) -> NDArray[np.uint8]:
    """Scale by one box filter and cut the centre, as LSUN was exported: uint8 [resolution, resolution, C].

    CorruptError when the image is so elongated that it cannot be scaled in reasonable memory.
    """
    final = _size_with_shorter_side(Size(*image.size), resolution)
    _check_scaled(image, resolution, final)
    scaled = _in_mode(image, _MODES[channels]).resize(final, Image.Resampling.BOX)
    top, left = (final.height - resolution) // 2, (final.width - resolution) // 2
    pixels = np.asarray(scaled).reshape(final.height, final.width, channels)
    return pixels[top : top + resolution, left : left + resolution]


def area_downsampled(images: Tensor, resolution: int) -> Tensor:
    """The conditioning image of super-resolution training: [N, C, H, W] -> means over areas, [N, C, r, r]."""
    # not at the top: a process that only decodes images has no use for torch, and no seconds to import it
    from torch.nn import functional as F

    return F.interpolate(images, (resolution, resolution), mode="area")


def _sizes_on_the_way(size: Size, side: int) -> list[Size]:
    """The sizes after each halving, then after the last scaling."""
    sizes = []
    while min(size) >= 2 * side:
        size = Size(size.width // 2, size.height // 2)
        sizes.append(size)
    return [*sizes, _size_with_shorter_side(size, side)]


def _size_with_shorter_side(size: Size, side: int) -> Size:
    scale = side / min(size)
    return Size(round(size.width * scale), round(size.height * scale))


def _scaled(image: Image.Image, side: int) -> Image.Image:
    *halvings, final = _sizes_on_the_way(Size(*image.size), side)
    _check_scaled(image, side, final)
    for size in halvings:
        image = image.resize(size, Image.Resampling.BOX)
    if final == image.size:
        return image
    return image.resize(final, Image.Resampling.BICUBIC)


def _check_scaled(image: Image.Image, side: int, final: Size) -> None:
    if final.width * final.height > PIXEL_LIMIT:
        raise CorruptError(
            f"too elongated: {image.width}x{image.height} scaled to {side} pixels would be "
            f"{final.width}x{final.height}"
        )


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image in that mode, without the copy that Pillow makes when it has it."""
    return image if image.mode == mode else image.convert(mode)
