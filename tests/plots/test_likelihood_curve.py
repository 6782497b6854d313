"""The picture of a curve, where matplotlib is installed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from diffcli.plots.figures import can_draw
from diffcli.plots.likelihood_curve import draw_likelihood_curve
from diffcli.records.evaluations import LikelihoodCurve

pytest.importorskip("matplotlib")


def curve(length, **changes):
    values = tuple(0.5**step for step in range(length))
    rows = {"vb_bits_per_dim": values, "x_start_mse": values, "eps_mse": values} | changes
    return LikelihoodCurve(timesteps=tuple(range(length)), **rows)


def test_the_picture_shows_the_curve(tmp_path):
    assert can_draw()
    pictures = []
    for name, length in (("few", 5), ("many", 200)):
        draw_likelihood_curve(tmp_path / f"{name}.png", curve(length), title="run-1")
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.format == "PNG"
            pictures.append(np.asarray(picture.convert("L")))
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.png", "many.png"]


def test_values_without_a_logarithm_stop_nothing(tmp_path):
    draw_likelihood_curve(tmp_path / "odd.png", curve(3, vb_bits_per_dim=(math.nan, 0.0, math.inf)), title="")
    assert (tmp_path / "odd.png").stat().st_size > 1000
