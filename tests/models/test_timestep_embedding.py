"""The sinusoidal embedding of timesteps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffcli.models.embedding import timestep_embedding

with np.load(Path(__file__).parents[1] / "golden" / "diffusion_math.npz") as archive:
    PREFIX = "timestep_embedding/"
    RECORDED = {key.removeprefix(PREFIX): archive[key] for key in archive if key.startswith(PREFIX)}


def test_every_recorded_width_is_compared() -> None:
    assert set(RECORDED) == {"t", "dim32", "dim33", "dim128", "dim32_max100"}


@pytest.mark.parametrize("key", sorted(set(RECORDED) - {"t"}))
def test_golden(key: str) -> None:
    width, _, period = key.removeprefix("dim").partition("_max")
    t = torch.from_numpy(RECORDED["t"])
    embedding = timestep_embedding(t, int(width), max_period=float(period or 10_000))
    # exp rounds the last bit of a frequency one way or the other by processor; t multiplies that
    tolerance = 1e-6 + t[:, None] * 2.0**-24
    assert ((embedding - torch.from_numpy(RECORDED[key])).abs() <= tolerance).all()


def test_integer_and_float_timesteps_mean_the_same() -> None:
    t = torch.tensor([0, 1, 500, 3999])
    assert torch.equal(timestep_embedding(t, 64), timestep_embedding(t.float(), 64))
