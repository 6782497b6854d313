"""Image files of all kinds: decoded fully, or refused with the reason."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from diffcli.errors import CorruptError
from diffcli.images.decode import PIXEL_LIMIT, decoded, printable
from diffcli.images.plain_png import plain_png
from diffcli.images.resize import Size, center_crop, cropped_square

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def png_chunk(kind, content):
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def png_of_size(width, height, rows=b""):
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("PNG", "1"),
        ("PNG", "L"),
        ("PNG", "LA"),
        ("PNG", "P"),
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "I;16"),
        ("JPEG", "L"),
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("GIF", "P"),
        ("WEBP", "RGB"),
        ("WEBP", "RGBA"),
    ],
)
@pytest.mark.parametrize("recipe", ["improved", "guided"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_a_square_that_looks_the_same(tmp_path, kind, mode, recipe, channels):
    ramp = Image.linear_gradient("L").resize((60, 40))
    deep = Image.fromarray(np.asarray(ramp).astype(np.uint16) * 257)
    source = deep if mode == "I;16" else ramp.convert("RGB").convert(mode)
    # a misleading suffix: contents decide
    path = tmp_path / "image.png"
    path.write_bytes(encoded(source, kind))
    image = decoded(path)
    crop = center_crop(Size(*image.size), 16)
    pixels = cropped_square(image, 16, crop, recipe=recipe, channels=channels)
    assert pixels.shape == (16, 16, channels)
    # of dithered colours picked by nearest neighbour, only the means of large parts say anything
    parts, tolerance = (2, 30) if mode in ("1", "P") else (16, 12)
    expected = np.linspace(0, 255, 2 * parts + 1)[1::2]
    assert np.abs(pixels.reshape(parts, -1).mean(axis=1) - expected).max() < tolerance


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_truncated_file_is_refused(tmp_path, kind):
    content = encoded(Image.fromarray(NOISE), kind)
    path = tmp_path / "cut"
    path.write_bytes(content)
    assert decoded(path).size == (60, 40)
    for kept in (0.98, 0.5, 0.1):
        path.write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(CorruptError) as caught:
            decoded(path)
        assert str(path) in caught.value.where


def test_damaged_pixels_of_a_png_are_noticed(tmp_path):
    content = bytearray(encoded(Image.fromarray(NOISE), "PNG"))
    content[len(content) // 2] ^= 1
    path = tmp_path / "flipped.png"
    path.write_bytes(content)
    with pytest.raises(CorruptError):
        decoded(path)


def test_first_frame_of_an_animation(tmp_path):
    red, blue = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
    path = tmp_path / "moving.gif"
    red.save(path, save_all=True, append_images=[blue])
    assert decoded(path).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"just some text\n", "not a jpeg, png, gif or webp image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a jpeg, png, gif or webp image"),
        (b"\x89PNG\r\n\x1a\n", "not a jpeg, png, gif or webp image"),
    ],
)
def test_what_is_no_image(tmp_path, content, reason):
    path = tmp_path / "fake.png"
    path.write_bytes(content)
    with pytest.raises(CorruptError) as caught:
        decoded(path)
    assert caught.value.what == reason


def test_pipes_links_and_missing_files_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nothing")
    for name, reason in [
        ("pipe.png", "not a regular file"),
        ("link.png", "a link to a file that is not there"),
        ("gone.png", "no longer there"),
    ]:
        with pytest.raises(CorruptError) as caught:
            decoded(tmp_path / name)
        assert caught.value.what == reason


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (12_000, 11_000), (60_000, 60_000)])
def test_pixel_bombs_are_refused_before_they_are_unpacked(tmp_path, width, height):
    path = tmp_path / "bomb.png"
    rows = bytes((width // 8 + 1) * height) if width == 20_000 else b""
    path.write_bytes(png_of_size(width, height, rows))
    assert path.stat().st_size < 60_000
    with pytest.raises(CorruptError, match="more than 120 megapixels"):
        decoded(path)


def test_an_elongated_image_is_refused_before_it_is_enlarged(tmp_path):
    path = tmp_path / "line.png"
    path.write_bytes(png_of_size(100_000, 1, bytes(100_000 // 8 + 1)))
    image = decoded(path)
    with pytest.raises(CorruptError, match="too elongated"):
        cropped_square(image, 256, center_crop(Size(*image.size), 256), recipe="guided", channels=3)


def test_printable_names():
    assert printable("Katze größer 1.png") == "Katze größer 1.png"
    assert printable("a\nb\x1b[31m\udcff") == "a\\nb\\x1b[31m\\udcff"


# ---- the short way through plain PNG files ----

PLAIN = {
    "gray": ("L", {}),
    "colour": ("RGB", {}),
    "stored": ("RGB", {"compress_level": 0}),
    "best": ("RGB", {"compress_level": 9, "optimize": True}),
}
OTHERS = {
    "palette": ("P", {}),
    "black and white": ("1", {}),
    "alpha": ("RGBA", {}),
    "16 bits": ("I;16", {}),
    "one transparent colour": ("RGB", {"transparency": (0, 0, 0)}),
    "a resolution": ("RGB", {"dpi": (300, 300)}),
}


def as_pillow_reads(content):
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return image


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (60, 40), (257, 129)])
@pytest.mark.parametrize("kind", PLAIN)
def test_plain_png_files_are_what_pillow_reads(kind, size):
    mode, options = PLAIN[kind]
    content = encoded(Image.fromarray(NOISE).resize(size).convert(mode), "PNG", **options)
    found, expected = plain_png(content, PIXEL_LIMIT), as_pillow_reads(content)
    assert (found.mode, found.size) == (expected.mode, expected.size)
    assert found.tobytes() == expected.tobytes()
    assert plain_png(content, size[0] * size[1] - 1) is None


@pytest.mark.parametrize("kind", OTHERS)
def test_other_png_files_are_left_to_pillow(kind):
    mode, options = OTHERS[kind]
    image = Image.fromarray(NOISE).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    assert plain_png(encoded(image, "PNG", **options), PIXEL_LIMIT) is None


def test_no_damaged_png_is_read_as_another_picture():
    image = Image.fromarray(NOISE[:20, :20])
    content = encoded(image, "PNG")
    seen = set()
    for place in range(len(content)):
        flipped = content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
        for damaged in (content[:place], flipped):
            found = plain_png(damaged, PIXEL_LIMIT)
            seen.add(found is None)
            assert found is None or found.tobytes() == image.tobytes()
    assert True in seen
    # too few rows, too many, and a stream that does not end
    streams = [zlib.compress(b"\0" * 61 * rows) for rows in (10, 30)]
    for body in (*streams, streams[0][:-6], streams[1][:-6], b"\0" * 99):
        header = struct.pack(">IIBBBBB", 20, 20, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
        forged = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
        found = plain_png(forged, PIXEL_LIMIT)
        assert found is None or found.tobytes() == as_pillow_reads(forged).tobytes()
