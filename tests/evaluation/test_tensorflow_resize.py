"""TensorFlow 1's bilinear rule, against the rule written out for one pixel at a time."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from diffcli.evaluation.tensorflow_resize import neighbours, tensorflow_resized
from inception_formula import formula_images

SHOWN = [*range(0, 299, 23), 297, 298]


def by_hand(image, i, j):
    """Pixel (i, j) of tf.image.resize_bilinear(align_corners=False) to 299, in float32 throughout."""
    height, width = image.shape
    y = np.float32(i) * (np.float32(height) / np.float32(299))
    x = np.float32(j) * (np.float32(width) / np.float32(299))
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    x, y = x - np.float32(left), y - np.float32(top)
    above = image[top, left] + (image[top, right] - image[top, left]) * x
    below = image[bottom, left] + (image[bottom, right] - image[bottom, left]) * x
    return above + (below - above) * y


@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (2, 3), (28, 28), (32, 32), (64, 64), (256, 256), (300, 31), (299, 32), (512, 512)],
)
def test_the_rule_to_the_last_bit(height, width):
    images = formula_images(2, height, width, salt=5).permute(0, 3, 1, 2).float()
    resized = tensorflow_resized(images, 299)
    assert resized.shape == (2, 3, 299, 299)
    assert resized.dtype == torch.float32
    image = images[1, 2].numpy()
    expected = np.array([[by_hand(image, i, j) for j in SHOWN] for i in SHOWN])
    assert expected.dtype == np.float32
    assert np.array_equal(resized[1, 2].numpy()[np.ix_(SHOWN, SHOWN)], expected)


def test_its_own_size_gives_the_image_back():
    images = formula_images(2, 299, 299, salt=9).permute(0, 3, 1, 2).float()
    assert torch.equal(tensorflow_resized(images, 299), images)


def test_twice_the_size_takes_every_other_pixel():
    # a filter against aliasing, or half-pixel centres, would mix neighbours
    images = formula_images(1, 598, 598, salt=3).permute(0, 3, 1, 2).float()
    assert torch.equal(tensorflow_resized(images, 299), images[:, :, ::2, ::2])


def test_every_image_is_resized_by_itself():
    images = formula_images(3, 32, 48, salt=7).permute(0, 3, 1, 2).float()
    together = tensorflow_resized(images, 299)
    assert all(torch.equal(tensorflow_resized(images[i : i + 1], 299)[0], together[i]) for i in range(3))


@pytest.mark.parametrize("source", [1, 7, 32, 298, 299, 300, 512, 1000])
def test_places_lie_between_neighbours(source):
    between = neighbours(source, 299)
    first, second = between.first.tolist(), between.second.tolist()
    assert first[0] == 0
    assert all(low <= high for low, high in pairwise(first))
    assert all(high == min(low + 1, source - 1) for low, high in zip(first, second, strict=True))
    assert 0 <= between.share.min() <= between.share.max() < 1
