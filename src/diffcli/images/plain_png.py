"""The short way through the commonest PNG files: parsed here, unpacked by Pillow's own decoder.

Pillow parses PNG chunks in Python, which for a small image takes longer than its pixels, and holds all other
threads up.
"""

from __future__ import annotations

import struct
import zlib

from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")
_CHUNK_BYTES = 12
# colour types of PNG that are pixels without a palette and alpha
_MODES = {0: "L", 2: "RGB"}


def plain_png(content: bytes, pixel_limit: int) -> Image.Image | None:
    """An 8-bit gray or RGB PNG of header, pixels and end; None for whatever else, damaged or not."""
    if not content.startswith(_SIGNATURE):
        return None
    pixels: list[bytes] = []
    mode, size = "", (0, 0)
    place = len(_SIGNATURE)
    while place + _CHUNK_BYTES <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        kind, end = content[place + 4 : place + 8], place + _CHUNK_BYTES + length
        body = content[place + 8 : end - 4]
        if end > len(content) or zlib.crc32(kind + body) != int.from_bytes(content[end - 4 : end], "big"):
            return None
        if kind == b"IHDR" and not mode and length == _HEADER.size:
            width, height, bits, colour, *others = _HEADER.unpack(body)
            mode, size = _MODES.get(colour, ""), (width, height)
            if not mode or bits != 8 or any(others) or not 0 < width * height <= pixel_limit:
                return None
        elif kind == b"IDAT" and mode:
            pixels.append(body)
        elif kind == b"IEND" and pixels:
            return _unpacked(mode, size, b"".join(pixels))
        else:
            return None
        place = end
    return None


def _unpacked(mode: str, size: tuple[int, int], packed: bytes) -> Image.Image | None:
    try:
        return Image.frombytes(mode, size, packed, "zip", mode)
    except (ValueError, OSError):
        return None
