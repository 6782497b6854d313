"""Laws of the uint8 conversion and of the grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from diffcli.errors import StorageError
from diffcli.images.conversion import from_uint8, to_uint8
from diffcli.images.grid import grid, write_gif, write_png


def test_every_pixel_value_survives_the_round_trip_within_the_truncation():
    pixels = torch.arange(256, dtype=torch.uint8)
    there = from_uint8(pixels)
    assert there.dtype == torch.float32
    assert (there[0], there[255]) == (-1.0, 1.0)
    # the reference truncates, so that a rounding error just below a whole number costs one level
    lost = pixels.int() - to_uint8(there).int()
    assert set(lost.tolist()) <= {0, 1}
    assert torch.equal(to_uint8(there + 1e-4), pixels)


def test_out_of_range_values_are_clamped():
    assert to_uint8(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


def numbered_images(count, channels):
    return np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 3, 4, channels), np.uint8
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnify", [1, 2])
def test_grid_is_filled_row_by_row(channels, magnify):
    sheet = grid(numbered_images(5, channels), columns=3, magnify=magnify)
    assert sheet.shape == (2 * 3 * magnify + 2, 3 * 4 * magnify + 4, channels)
    centers = sheet[magnify :: 3 * magnify + 2, magnify :: 4 * magnify + 2, 0]
    assert centers.tolist() == [[1, 2, 3], [4, 5, 255]]
    for number in range(1, 6):
        assert (sheet == number).sum() == 3 * 4 * magnify**2 * channels


def test_grid_is_as_square_as_it_gets_by_itself():
    assert grid(numbered_images(10, 1)).shape == (3 * 3 + 4, 4 * 4 + 6, 1)
    assert grid(numbered_images(1, 3)).shape == (3, 4, 3)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_png_holds_the_same_pixels(tmp_path, channels, mode):
    sheet = grid(numbered_images(4, channels))
    write_png(tmp_path / "grid.png", sheet)
    with Image.open(tmp_path / "grid.png") as image:
        assert image.mode == mode
        assert np.array_equal(np.asarray(image).reshape(sheet.shape), sheet)


def test_png_that_cannot_be_written(tmp_path):
    with pytest.raises(StorageError, match="nowhere"):
        write_png(tmp_path / "nowhere" / "grid.png", grid(numbered_images(1, 3)))


def frames_in(path):
    """The frames of an animation as RGB arrays, and how long each lasts in milliseconds."""
    with Image.open(path) as animation:
        shown = []
        for place in range(animation.n_frames):
            animation.seek(place)
            shown.append((np.asarray(animation.convert("RGB")), animation.info["duration"]))
        return shown


@pytest.mark.parametrize("channels", [1, 3])
def test_an_animation_shows_every_frame_enlarged_in_its_own_colours(tmp_path, channels):
    # 12 colours a frame are few enough to be kept
    frames = np.random.default_rng(0).integers(0, 256, (5, 3, 4, channels), dtype=np.uint8)
    write_gif(tmp_path / "way.gif", frames, magnify=2, frame_seconds=0.12)
    shown = frames_in(tmp_path / "way.gif")
    assert [duration for _, duration in shown] == [120] * 5
    for frame, (pixels, _) in zip(frames, shown, strict=True):
        assert np.array_equal(pixels, np.broadcast_to(frame.repeat(2, 0).repeat(2, 1), (6, 8, 3)))
    with pytest.raises(StorageError, match="nowhere"):
        write_gif(tmp_path / "nowhere" / "way.gif", frames, magnify=1, frame_seconds=0.1)


def test_equal_neighbours_last_as_long_as_both(tmp_path):
    frames = numbered_images(3, 1)[[0, 1, 1, 2]]
    write_gif(tmp_path / "way.gif", frames, magnify=1, frame_seconds=0.1)
    shown = frames_in(tmp_path / "way.gif")
    assert [pixels[0, 0, 0] for pixels, _ in shown] == [1, 2, 3]
    assert [duration for _, duration in shown] == [100, 200, 100]
