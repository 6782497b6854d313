"""Many images laid out as one."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcli.durable import write_bytes

_GAP_PIXELS = 2
_BACKGROUND = 255


def grid(images: NDArray[np.uint8], *, columns: int = 0, magnify: int = 1) -> NDArray[np.uint8]:
    """Lay out images row by row, with gaps: uint8 [N, H, W, C], N >= 1 -> uint8 [height, width, C].

    columns: images per row, 0: as square as it gets; magnify: side of the square that each pixel becomes.
    """
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    height, width = height * magnify, width * magnify
    step_y, step_x = height + _GAP_PIXELS, width + _GAP_PIXELS
    shape = (rows * step_y - _GAP_PIXELS, columns * step_x - _GAP_PIXELS, channels)
    sheet = np.full(shape, _BACKGROUND, dtype=np.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * step_y, place % columns * step_x
        sheet[top : top + height, left : left + width] = _magnified(image, magnify)
    return sheet


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 1] or [H, W, 3] as a PNG file, whole or not at all; StorageError when that fails."""
    encoded = io.BytesIO()
    _picture(image).save(encoded, format="PNG")
    write_bytes(path, encoded.getvalue())


def write_gif(path: Path, frames: NDArray[np.uint8], *, magnify: int, frame_seconds: float) -> None:
    """Write uint8 [N, H, W, 1] or [N, H, W, 3] as an endless animation, whole or not at all; StorageError.

    Each frame has at most 256 colours; equal neighbours may become one frame that lasts as long as both.
    """
    pictures = [_picture(_magnified(frame, magnify)) for frame in frames]
    encoded = io.BytesIO()
    pictures[0].save(
        encoded,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 * frame_seconds),
        loop=0,
    )
    write_bytes(path, encoded.getvalue())


def _magnified(image: NDArray[np.uint8], magnify: int) -> NDArray[np.uint8]:
    return image.repeat(magnify, 0).repeat(magnify, 1)


def _picture(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
