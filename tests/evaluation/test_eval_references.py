"""`diffcli eval`: that both sides are the images that are meant, in real processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latent_runs import drawing
from runs_in_processes import Bench, fork, make_bench
from runs_on_disk import run_of_a_network

PIXELS = ("--features", "pixels", "--metrics", "fd", "--device", "cpu", "--threads", "1")
DRAWN = ("--num", "20", "--ddim", "2", "--batch-size", "10")


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Bench:
    """Digits, and a run of a network that was not trained."""
    made = make_bench(tmp_path_factory.mktemp("eval-references"))
    run_of_a_network(made.runs, drawing(8, classes=0), "plain")
    return made


def evaluated(bench: Bench, *arguments: str):
    return json.loads(fork(bench, "eval", *arguments, *PIXELS, "--json").succeeds().output)


def distance(result) -> float:
    (metric,) = result["metrics"]
    return metric["value"]


def gray_folder(directory: Path, *, brightness: int) -> Path:
    """24 uncompressed images, so that their sizes tell nothing of their pixels."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(brightness)
    for number in range(24):
        pixels = rng.integers(brightness, brightness + 100, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"{number:02d}.png", compress_level=0)
    return directory


def test_folders_of_the_same_names_and_sizes_are_told_apart(digits, tmp_path):
    dark, bright = (gray_folder(tmp_path / str(shade), brightness=shade) for shade in (0, 150))
    out = tmp_path / "kept.json"
    line = ("--reference", "digits/test", "--out", str(out))
    kept = evaluated(digits, str(dark), *line)
    refused = fork(digits, "eval", str(bright), *line, *PIXELS)
    assert refused.exit_code() == 2
    assert "is another evaluation" in refused.errors
    assert distance(evaluated(digits, str(bright), *line, "--force")) != distance(kept)
    of_run = ("run-1", *DRAWN)
    assert distance(evaluated(digits, *of_run, "--reference", str(dark))) != distance(
        evaluated(digits, *of_run, "--reference", str(bright))
    )


def test_a_folder_that_was_changed_in_place_is_measured_again(digits, tmp_path):
    folder = gray_folder(tmp_path / "folder", brightness=0)
    line = ("run-1", *DRAWN, "--reference", str(folder))
    before = evaluated(digits, *line)
    assert evaluated(digits, *line)["already_there"]
    gray_folder(folder, brightness=150)
    after = evaluated(digits, *line)
    assert not after["already_there"]
    assert distance(after) != distance(before)
