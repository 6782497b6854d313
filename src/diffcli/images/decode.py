"""Image files of unknown origin, decoded fully or refused with the reason."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from diffcli.errors import CorruptError, DiffcliError, StorageError

# Above the cameras of today (102 megapixels), and at most 360 MB of RGB for each thread that decodes.
PIXEL_LIMIT = 120_000_000
# Decoders that only read pixels; others, such as that of PostScript, would start programs.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP")

# Pillow warns from 89 megapixels on; the limit above refuses instead.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decoded(path: Path) -> Image.Image:
    """The first frame of a jpeg, png, gif or webp file with all its pixels in memory, in its own 8-bit mode.

    16-bit gray keeps its high bytes. EXIF orientation is not applied, as in the reference. CorruptError when
    it is not a whole image or has too many pixels, StorageError when it cannot be read.
    """
    try:
        _require_content(path)
        with Image.open(path, formats=_FORMATS) as image:
            _require_sane_size(path, image)
            image.load()
            return _eight_bit(image)
    except DiffcliError:
        raise
    except UnidentifiedImageError as error:
        raise CorruptError("not a jpeg, png, gif or webp image", where=printable(path)) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except OSError as error:
        if error.errno:
            raise StorageError(os.strerror(error.errno).lower(), where=printable(path)) from error
        raise _undecodable(path, error) from error
    except Exception as error:  # decoders of damaged files raise whatever they stumble on
        raise _undecodable(path, error) from error


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


def _require_sane_size(path: Path, image: Image.Image) -> None:
    if image.width * image.height > PIXEL_LIMIT:
        raise _too_large(path)


def _eight_bit(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I"):
        return image.copy()
    # Pillow would saturate these to white; of 16-bit colour it takes the high bytes itself
    return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 0xFFFF) >> 8).astype(np.uint8))


def _too_large(path: Path) -> CorruptError:
    return CorruptError(f"more than {PIXEL_LIMIT // 1_000_000} megapixels", where=printable(path))


def _undecodable(path: Path, error: Exception) -> CorruptError:
    reason = str(error).partition("\n")[0][:100] or type(error).__name__
    return CorruptError(f"cannot be decoded: {reason}", where=printable(path))
