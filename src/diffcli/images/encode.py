"""Pixels as the bytes of an image file, the same bytes for the same pixels."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcli.records.datasets import Encoding

# by encoding
SUFFIX_OF: Mapping[str, str] = MappingProxyType({"jpeg": "jpg", "webp": "webp", "png": "png"})
# lossless both; of WebP the settings that take a fifth off a PNG at twice its speed
_LOSSLESS: Mapping[Encoding, Mapping[str, Any]] = MappingProxyType(
    {"webp": {"lossless": True, "quality": 20, "method": 2}, "png": {}}
)


@dataclass(frozen=True, kw_only=True)
class EncodingChoice:
    """How images are encoded; quality: of JPEG, 1..100; WebP and PNG lose nothing."""

    name: Encoding
    quality: int

    @property
    def suffix(self) -> str:
        """Of file names, without the dot."""
        return SUFFIX_OF[self.name]


PNG = EncodingChoice(name="png", quality=0)


def encoded(pixels: NDArray[np.uint8], choice: EncodingChoice) -> bytes:
    """An image file: uint8 [H, W, 1] or [H, W, 3] -> bytes. JPEG keeps colours at full resolution (4:4:4)."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    if choice.name == "jpeg":
        image.save(buffer, format="JPEG", quality=choice.quality, subsampling=0)
    else:
        image.save(buffer, format=choice.name, **_LOSSLESS[choice.name])
    return buffer.getvalue()
