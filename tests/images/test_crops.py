"""Laws of the crops: always inside, never smaller than asked."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffcli.images.resize import (
    Size,
    center_crop,
    cropped_square,
    random_crop,
    random_crop_sides,
    scaled_size,
)

sizes = st.builds(Size, st.integers(1, 400), st.integers(1, 400))
resolutions = st.integers(1, 96)
unit = st.floats(0, 1, exclude_max=True)


@given(size=sizes, side=resolutions)
def test_the_shorter_side_becomes_exactly_what_was_asked(size, side):
    assert min(scaled_size(size, side)) == side


@given(size=sizes, resolution=resolutions, draws=st.tuples(unit, unit, unit))
def test_crops_lie_inside_the_scaled_image(size, resolution, draws):
    for crop in (center_crop(size, resolution), random_crop(size, resolution, draws)):
        width, height = scaled_size(size, crop.side)
        assert 0 <= crop.top <= height - resolution
        assert 0 <= crop.left <= width - resolution


@given(resolution=resolutions)
def test_extreme_draws_reach_the_ends(resolution):
    size, almost_one = Size(200, 150), 1 - 2**-32
    sides = random_crop_sides(resolution)
    first = random_crop(size, resolution, (0, 0, 0))
    last = random_crop(size, resolution, (almost_one,) * 3)
    assert (first.side, first.top, first.left) == (sides[0], 0, 0)
    width, height = scaled_size(size, sides[-1])
    assert (last.side, last.top, last.left) == (sides[-1], height - resolution, width - resolution)


def test_an_image_of_the_exact_size_is_not_changed():
    pixels = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    crop = center_crop(Size(24, 24), 24)
    for recipe in ("improved", "guided"):
        same = cropped_square(Image.fromarray(pixels), 24, crop, recipe=recipe, channels=3)
        assert np.array_equal(same, pixels)
