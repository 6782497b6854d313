"""Resizing, cropping and conversion against the golden images, every array of them."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from diffcli.images.conversion import from_uint8, to_uint8
from diffcli.images.decode import decoded
from diffcli.images.resize import (
    Crop,
    Size,
    area_downsampled,
    center_crop,
    cropped_square,
    random_crop_sides,
    scaled_size,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "images"
INDEX = json.loads((GOLDEN / "index.json").read_text())
with np.load(GOLDEN / "expected.npz", allow_pickle=False) as archive:
    EXPECTED = {name: archive[name] for name in archive.files}

RECIPES = ("improved", "guided")
# 16-bit gray turns white in the reference; README section 8 calls these arrays informative
SATURATED = "l16_40x37.png"
RESIZED = [
    (case["file"], case["resolution"], recipe)
    for case in INDEX["cases"]
    for recipe in RECIPES
    if case["file"] != SATURATED
]


def central_square(file, resolution, recipe):
    image = decoded(GOLDEN / file)
    crop = center_crop(Size(*image.size), resolution)
    return cropped_square(image, resolution, crop, recipe=recipe, channels=3)


@pytest.mark.parametrize(("file", "resolution", "recipe"), RESIZED)
def test_recipe(file, resolution, recipe):
    ours = central_square(file, resolution, recipe)
    key = f"{file}/{resolution}/{recipe}"
    np.testing.assert_array_equal(ours, EXPECTED[f"{key}/uint8_hwc"])
    if f"{key}/float_chw" in EXPECTED:
        floats = from_uint8(torch.from_numpy(ours.copy()).permute(2, 0, 1))
        np.testing.assert_array_equal(floats.numpy(), EXPECTED[f"{key}/float_chw"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_16_bit_gray_keeps_its_shades_where_the_reference_turns_white(recipe):
    assert EXPECTED[f"{SATURATED}/16/{recipe}/uint8_hwc"].min() == 255
    assert (EXPECTED[f"{SATURATED}/16/{recipe}/float_chw"] == 1).all()
    ours = central_square(SATURATED, 16, recipe)
    with Image.open(GOLDEN / SATURATED) as image:
        shades = np.asarray(image).astype(float) / 65535 * 255
    assert abs(ours.mean() - shades.mean()) < 1
    assert shades.min() - 2 < ours.min() < ours.max() < shades.max() + 2


@pytest.mark.parametrize("number", range(len(INDEX["random_crop"])))
def test_random_crop(number):
    case = INDEX["random_crop"][number]
    resolution = case["resolution"]
    image = decoded(GOLDEN / case["file"])
    draw = random.Random(case["python_random_seed"]).randrange
    sides = random_crop_sides(resolution)
    assert (sides[0], sides[-1]) == (resolution, math.ceil(resolution / 0.8))
    side = draw(sides.start, sides.stop)
    width, height = scaled_size(Size(*image.size), side)
    crop = Crop(side=side, top=draw(height - resolution + 1), left=draw(width - resolution + 1))
    ours = cropped_square(image, resolution, crop, recipe="guided", channels=3)
    np.testing.assert_array_equal(ours, EXPECTED[f"random_crop/{number}/uint8_hwc"])


@pytest.mark.parametrize("resolution", [8, 12])
def test_low_resolution_image_of_super_resolution(resolution):
    small = area_downsampled(torch.from_numpy(EXPECTED["superres/large"]), resolution)
    np.testing.assert_allclose(small, EXPECTED[f"superres/low_res_area_{resolution}"], atol=1e-6, rtol=0)


def test_low_resolution_image_seen_through_the_models_bilinear_resize():
    small = area_downsampled(torch.from_numpy(EXPECTED["superres/large"]), 8)
    seen = F.interpolate(small, (32, 32), mode="bilinear", align_corners=False)
    expected = EXPECTED["superres/low_res_8_upsampled_bilinear_32"]
    np.testing.assert_allclose(seen, expected, atol=1e-6, rtol=0)


def test_to_uint8():
    ours = to_uint8(torch.from_numpy(EXPECTED["to_uint8/x"]))
    np.testing.assert_array_equal(ours, EXPECTED["to_uint8/out"])


@pytest.mark.parametrize("path", ["dataset_path", "superres_base_path"])
def test_from_uint8(path):
    ours = from_uint8(torch.from_numpy(EXPECTED["from_uint8/u"]))
    np.testing.assert_allclose(ours, EXPECTED[f"from_uint8/{path}"], atol=1e-7, rtol=0)


def test_no_golden_array_is_left_out():
    resized = {f"{file}/{size}/{recipe}/uint8_hwc" for file, size, recipe in RESIZED}
    resized |= {f"{SATURATED}/16/{recipe}/uint8_hwc" for recipe in RECIPES}
    floats = {name for name in EXPECTED if name.endswith("/float_chw")}
    assert {name.removesuffix("float_chw") + "uint8_hwc" for name in floats} <= resized
    others = {f"random_crop/{number}/uint8_hwc" for number in range(len(INDEX["random_crop"]))}
    others |= {"superres/large", "superres/low_res_area_8", "superres/low_res_area_12"}
    others |= {"superres/low_res_8_upsampled_bilinear_32", "to_uint8/x", "to_uint8/out", "from_uint8/u"}
    others |= {"from_uint8/dataset_path", "from_uint8/superres_base_path"}
    assert set(EXPECTED) == resized | floats | others
    pngs = {path.name for path in GOLDEN.glob("*.png")}
    assert pngs == {case["file"] for case in INDEX["cases"]}
