"""Image files of unknown origin, decoded fully or refused with the reason."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError

from diffcli.errors import CorruptError, DiffcliError, StorageError

# Above the cameras of today (102 megapixels), and at most 360 MB of RGB for each thread that decodes.
PIXEL_LIMIT = 120_000_000
# Another version may round pixels in another way.
DECODER = f"pillow {PIL.__version__}"
# Decoders that only read pixels; others, such as that of PostScript, would start programs.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP")

# Pillow warns from 89 megapixels on; the limit above refuses instead.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decoded(path: Path) -> Image.Image:
    """The first frame of a jpeg, png, gif or webp file with all its pixels in memory, in its own 8-bit mode.

    16-bit gray keeps its high bytes. EXIF orientation is not applied, as in the reference. CorruptError when
    it is not a whole image or has too many pixels, StorageError when it cannot be read.
    """
    with _refusals_told(printable(path)):
        _require_content(path)
        return _first_frame(path, printable(path))


def decoded_content(content: bytes, name: str) -> Image.Image:
    """The same of the content of a file; name: what errors call it."""
    with _refusals_told(printable(name)):
        if not content:
            raise CorruptError("an empty file", where=printable(name))
        return _first_frame(io.BytesIO(content), printable(name))


def printable(name: str | Path) -> str:
    """A file name as text that is safe to print: control and undecodable characters are escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(name)
    )


def _require_content(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise CorruptError("a link to a file that is not there", where=printable(path))
    if not path.exists():
        raise CorruptError("no longer there", where=printable(path))
    # opening a pipe would wait for its writer
    if not path.is_file():
        raise CorruptError("not a regular file", where=printable(path))
    if path.stat().st_size == 0:
        raise CorruptError("an empty file", where=printable(path))


def _first_frame(file: Path | BinaryIO, where: str) -> Image.Image:
    with Image.open(file, formats=_FORMATS) as image:
        if image.width * image.height > PIXEL_LIMIT:
            raise _too_large(where)
        image.load()
        return _eight_bit(image)


def _eight_bit(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I"):
        return image.copy()
    # Pillow would saturate these to white; of 16-bit colour it takes the high bytes itself
    return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 0xFFFF) >> 8).astype(np.uint8))


@contextlib.contextmanager
def _refusals_told(where: str) -> Iterator[None]:
    """Turn whatever Pillow and the system raise into errors that say what is wrong with the file."""
    try:
        yield
    except DiffcliError:
        raise
    except UnidentifiedImageError as error:
        raise CorruptError("not a jpeg, png, gif or webp image", where=where) from error
    except Image.DecompressionBombError as error:
        raise _too_large(where) from error
    except OSError as error:
        if error.errno:
            raise StorageError(os.strerror(error.errno).lower(), where=where) from error
        raise _undecodable(where, error) from error
    except Exception as error:  # decoders of damaged files raise whatever they stumble on
        raise _undecodable(where, error) from error


def _too_large(where: str) -> CorruptError:
    return CorruptError(f"more than {PIXEL_LIMIT // 1_000_000} megapixels", where=where)


def _undecodable(where: str, error: Exception) -> CorruptError:
    reason = str(error).partition("\n")[0][:100] or type(error).__name__
    return CorruptError(f"cannot be decoded: {reason}", where=where)
