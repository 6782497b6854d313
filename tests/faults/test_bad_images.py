"""Trials 23 and 24: images that are damaged, faked, unusual or huge, prepared or trained on as they are."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aftermath import CORRUPT, assert_ended, assert_sound, peak_memory_bytes
from diffcli.data.prepared import PreparedDataset
from runs_in_processes import NEW, Bench, fork, status

PREPARE = ("prepare", "folder", "folder", "--size", "8")
# the whole folder in one batch, so that every image is met
ONE_BATCH = (*NEW, "--data", "folder", "--steps", "1", "--set", "data.channels=3", "--set", "model.classes=0")
SIDE = 24


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def ramp(mode: str = "RGB") -> Image.Image:
    return Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB").convert(mode)


def deep() -> Image.Image:
    return Image.fromarray(np.asarray(ramp("L")).astype(np.uint16) * 257)


def transparent_palette() -> bytes:
    return encoded(ramp("P"), "PNG", transparency=0)


UNUSUAL: dict[str, Callable[[], bytes]] = {
    "cmyk_1.jpg": lambda: encoded(ramp("CMYK"), "JPEG"),
    "deep_1.png": lambda: encoded(deep(), "PNG"),
    "palette_1.png": lambda: encoded(ramp("P"), "PNG"),
    "holes_1.png": transparent_palette,
    "bits_1.png": lambda: encoded(ramp("1"), "PNG"),
    "alpha_1.webp": lambda: encoded(ramp("RGBA"), "WEBP"),
    "moving_1.gif": lambda: encoded(
        ramp("P"), "GIF", save_all=True, append_images=[Image.new("P", (SIDE, SIDE), 0)] * 3
    ),
    "moving_1.webp": lambda: encoded(
        ramp(), "WEBP", save_all=True, append_images=[Image.new("RGB", (SIDE, SIDE))] * 3
    ),
    "moving_1.png": lambda: encoded(
        ramp(), "PNG", save_all=True, append_images=[Image.new("RGB", (SIDE, SIDE))] * 3
    ),
    "misnamed_1.png": lambda: encoded(ramp(), "JPEG"),
}


def text_bomb() -> bytes:
    """A PNG whose comment unpacks to 64 MB."""
    whole = encoded(ramp(), "PNG")
    comment = b"Comment\0\0" + zlib.compress(bytes(64_000_000), 9)
    chunk = struct.pack(">I", len(comment)) + b"zTXt" + comment
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + comment))
    after_header = 8 + 25
    return whole[:after_header] + chunk + whole[after_header:]


def screen_bomb() -> bytes:
    """A GIF whose screen claims 65,535 pixels a side."""
    return b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + encoded(ramp("P"), "GIF")[10:]


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "bad_empty.png": (lambda: b"", "an empty file"),
    "bad_text.jpg": (lambda: b"not an image\n", "not a jpeg, png, gif or webp image"),
    "bad_script.gif": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a jpeg, png, gif or webp image"),
    "bad_tiff.png": (lambda: encoded(ramp(), "TIFF"), "not a jpeg, png, gif or webp image"),
    "bad_cut.png": (lambda: encoded(ramp(), "PNG")[:-40], "cannot be decoded"),
    "bad_cut.jpg": (lambda: encoded(ramp(), "JPEG")[:-40], "cannot be decoded"),
    "bad_cut.webp": (lambda: encoded(ramp(), "WEBP")[:-40], ""),
    "bad_bomb.png": (
        lambda: encoded(Image.new("1", (20_000, 20_000)), "PNG"),
        "more than 120 megapixels",
    ),
    "bad_text_bomb.png": (text_bomb, "cannot be decoded"),
    "bad_screen.gif": (screen_bomb, "more than 120 megapixels"),
}


@pytest.fixture
def place(trained, tmp_path) -> Bench:
    """A bench with an empty folder for images."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "tiny.toml").write_text((trained.directory / "tiny.toml").read_text())
    return Bench(directory=tmp_path)


def fill(folder: Path, images: dict[str, bytes]) -> None:
    for name, content in images.items():
        (folder / name).write_bytes(content)


def test_unusual_images_are_what_they_show(place):
    fill(place.directory / "folder", {name: make() for name, make in UNUSUAL.items()})
    assert_ended(fork(place, *PREPARE), 0, f"{len(UNUSUAL)} images")
    dataset = PreparedDataset(place.directory / "data" / "folder_8" / "train")
    pixels = dataset.read(np.arange(dataset.count)).astype(float)
    # from black above to white below, each of them, also with few colours and dithered
    rows = pixels.mean(axis=(2, 3))
    assert np.abs(rows[:, :4].mean(axis=1) - 64).max() < 30
    assert np.abs(rows[:, 4:].mean(axis=1) - 191).max() < 30
    trained = fork(place, *ONE_BATCH, "--set", f"training.batch_size={len(UNUSUAL)}")
    assert_ended(trained, 0)
    assert_sound(place)


def test_every_bad_image_is_listed_by_path_and_nothing_is_written(place):
    images = {name: make() for name, (make, _) in BAD.items()}
    fill(place.directory / "folder", images | {"good_1.png": encoded(ramp(), "PNG")})
    refused = fork(place, *PREPARE)
    peak = peak_memory_bytes(refused)
    listed = [f"{name}: {reason}" for name, (_, reason) in sorted(BAD.items())]
    # eleven lines of images are more than most errors take
    assert refused.exit_code() == CORRUPT, refused.errors
    assert f"error: {len(BAD)} of {len(BAD) + 1} images in folder cannot be used" in refused.errors
    for line in listed:
        assert line in refused.errors
    assert "Traceback" not in refused.errors
    (place.directory / "folder" / "bad_bomb.png").unlink()
    assert peak < peak_memory_bytes(fork(place, *PREPARE)) + 50_000_000
    assert not (place.directory / "data").exists()
    assert_sound(place)


@pytest.mark.parametrize("name", ["bad_empty.png", "bad_cut.png"])
def test_training_on_the_folder_itself_names_a_bad_image_when_it_meets_it(name, place):
    make, reason = BAD[name]
    good = {f"good_{number}.png": encoded(ramp(), "PNG") for number in range(7)}
    fill(place.directory / "folder", good | {name: make()})
    failed = fork(place, *ONE_BATCH)
    assert_ended(failed, CORRUPT, "1 of 8 images in folder", f"{name}: {reason}")
    assert (status(place.run())["state"], status(place.run())["exit_code"]) == ("failed", CORRUPT)
    (place.directory / "folder" / name).unlink()
    assert_ended(fork(place, *ONE_BATCH), 0)
    assert_sound(place)
