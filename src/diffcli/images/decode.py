"""Image files of unknown origin, decoded fully or refused with the reason."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError

from diffcli.errors import CorruptError, DiffcliError, StorageError
from diffcli.images.plain_png import plain_png

# Above the cameras of today (102 megapixels), and at most 360 MB of RGB for each thread that decodes.
PIXEL_LIMIT = 120_000_000
# Another version may round pixels in another way.
DECODER = f"pillow {PIL.__version__}"
# Decoders that only read pixels; others, such as that of PostScript, would start programs.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP")
_OF_ONE_FRAME = ("JPEG",)
# Reading in one go beats Pillow's many small reads, but what no image needs is not taken into memory.
_READ_AT_ONCE_BYTES = 64 * 2**20

# Pillow warns from 89 megapixels on; the limit above refuses instead.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decoded(path: str | Path) -> Image.Image:
    """The first frame of a jpeg, png, gif or webp file with all its pixels in memory, in its own 8-bit mode.

    16-bit gray keeps its high bytes. EXIF orientation is not applied, as in the reference. CorruptError when
    it is not a whole image or has too many pixels, StorageError when it cannot be read.
    """
    with _refusals_told(path):
        descriptor = _opened(path)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise CorruptError("not a regular file", where=printable(path))
            if not status.st_size:
                raise CorruptError("an empty file", where=printable(path))
            if status.st_size > _READ_AT_ONCE_BYTES:
                return _first_frame(file, path)
            return _decoded_bytes(file.read(), path)


def holds_gray(path: str | Path) -> bool:
    """Whether `decoded` gives gray pixels, of mode L, told by the header; its errors."""
    with (
        _refusals_told(path),
        os.fdopen(_opened(path), "rb") as file,
        Image.open(file, formats=_FORMATS) as image,
    ):
        return image.mode == "L" or image.mode.startswith("I")


def decoded_content(content: bytes, name: str) -> Image.Image:
    """The same of the content of a file; name: what errors call it."""
    with _refusals_told(name):
        if not content:
            raise CorruptError("an empty file", where=printable(name))
        return _decoded_bytes(content, name)


def printable(name: str | Path) -> str:
    """A file name as text that is safe to print: control and undecodable characters are escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(name)
    )


def _opened(path: str | Path) -> int:
    try:
        # opening a pipe would wait for its writer without O_NONBLOCK
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        gone = "a link to a file that is not there" if Path(path).is_symlink() else "no longer there"
        raise CorruptError(gone, where=printable(path)) from error
    except OSError as error:
        # so the system says of a socket
        if error.errno == errno.ENXIO:
            raise CorruptError("not a regular file", where=printable(path)) from error
        raise


def _decoded_bytes(content: bytes, name: str | Path) -> Image.Image:
    return plain_png(content, PIXEL_LIMIT) or _first_frame(io.BytesIO(content), name)


def _first_frame(file: BinaryIO, name: str | Path) -> Image.Image:
    with Image.open(file, formats=_FORMATS) as image:
        if image.width * image.height > PIXEL_LIMIT:
            raise _too_large(printable(name))
        image.load()
        # those of several frames would go on to another when they are asked for their pixels again
        return _eight_bit(image if image.format in _OF_ONE_FRAME else image.copy())


def _eight_bit(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I"):
        return image
    # Pillow would saturate these to white; of 16-bit colour it takes the high bytes itself
    return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 0xFFFF) >> 8).astype(np.uint8))


@contextlib.contextmanager
def _refusals_told(name: str | Path) -> Iterator[None]:
    """Turn whatever Pillow and the system raise into errors that say what is wrong with the file."""
    try:
        yield
    except DiffcliError:
        raise
    except Exception as error:
        raise _refusal(error, printable(name)) from error


def _refusal(error: Exception, where: str) -> DiffcliError:
    if isinstance(error, UnidentifiedImageError):
        return CorruptError("not a jpeg, png, gif or webp image", where=where)
    if isinstance(error, Image.DecompressionBombError):
        return _too_large(where)
    if isinstance(error, OSError) and error.errno:
        return StorageError(os.strerror(error.errno).lower(), where=where)
    # decoders of damaged files raise whatever they stumble on
    reason = str(error).partition("\n")[0][:100] or type(error).__name__
    return CorruptError(f"cannot be decoded: {reason}", where=where)


def _too_large(where: str) -> CorruptError:
    return CorruptError(f"more than {PIXEL_LIMIT // 1_000_000} megapixels", where=where)
