"""Trial 3: kills within one epoch and on its boundary, of a dataset of a few batches."""

from __future__ import annotations

from signal import SIGKILL

import numpy as np
import pytest
from PIL import Image

from aftermath import assert_ended, assert_sound
from runs_in_processes import (
    NEW,
    RESUME,
    STEPS,
    Bench,
    Moment,
    assert_same_training,
    attempts,
    fork,
    make_bench,
)

BATCH = 8


def bench_with(images: int, directory) -> Bench:
    bench = make_bench(directory)
    (directory / "photos").mkdir()
    pixels = np.random.default_rng(images).integers(0, 256, (images, 8, 8), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(directory / "photos" / f"{number % 10}_{number:03d}.png")
    return bench


# of batches of 8: an epoch ends with step 6, or within step 6, or several times in every step
@pytest.mark.parametrize("images", [6 * BATCH, 6 * BATCH - 3, pytest.param(3, marks=pytest.mark.slow)])
def test_three_kills_in_one_epoch_one_on_its_boundary_change_no_bit(images, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, parts = (bench_with(images, tmp_path / name) for name in ("whole", "parts"))
    line = (*NEW, "--data", "photos", "--set", "training.save_every=3")
    if images < 10:
        line = (*line, "--set", "model.classes=3")
    assert_ended(fork(whole, *line), 0)
    # the checkpoint of step 6 comes after the first kill, so the boundary is passed twice
    for step, arguments in zip((6, 8, 11), (line, RESUME, RESUME), strict=True):
        moment = Moment(event="StepDone", step=step, signal_number=SIGKILL)
        assert fork(parts, *arguments, moment=moment).exit_code() == -SIGKILL
    assert_ended(fork(parts, *RESUME), 0)
    assert [attempt["first_step"] for attempt in attempts(parts.run())][:2] == [0, 3]
    assert len(attempts(parts.run())) == 4
    assert_same_training(parts.run(), whole.run(), step=STEPS)
    assert_sound(parts)
