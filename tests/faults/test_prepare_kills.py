"""SIGKILL at random moments of `prepare`: it goes on, and ends with the bytes of an uninterrupted one."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

import numpy as np
import pytest
from PIL import Image

from aftermath import half_made_datasets
from runs_in_processes import Bench, fork, make_bench

PHOTOS, SIZE = 60, 32
FORMS = {
    "packed": ("--format", "packed"),
    "shards": ("--format", "shards", "--encoding", "webp"),
    "folder": ("--layout", "folder"),
}


@dataclass(frozen=True, kw_only=True)
class Eager:
    """Every image is made durable at once, so that there is something to go on from; shards are short."""

    def arm(self) -> None:
        """Lay the trap."""
        from diffcli.data import folder_writer, packed_writer, shard_files, shard_writer

        for writer in (folder_writer, packed_writer, shard_writer):
            writer.SECONDS_BETWEEN_SYNCS = 0.0
        shard_files._SHARD_PIXELS = 7 * SIZE**2


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Bench:
    """Different images that take half a second to prepare."""
    bench = make_bench(tmp_path_factory.mktemp("kills"))
    photos = bench.directory / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    for number in range(PHOTOS):
        Image.fromarray(np.roll(noise, number, axis=2) + np.uint8(number)).save(
            photos / f"{'xyz'[number % 3]}_{number}.jpg"
        )
    return bench


def content_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("kills", [12, pytest.param(120, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", FORMS)
def test_kills_at_random_moments_change_no_byte(form, kills, place):
    line = ("prepare", "folder", "photos", "--size", str(SIZE), "--name", "made", *FORMS[form])
    # the first process of a session waits for the server that forks it
    for _ in range(2):
        started_at = time.monotonic()
        fork(place, *line, "--force", "--data-home", f"whole_{form}_{kills}", moment=Eager()).succeeds()
        seconds = time.monotonic() - started_at
    place_in_home = "made_train" if form == "folder" else "made/train"
    expected = content_of(place.directory / f"whole_{form}_{kills}" / place_in_home)
    chance, killed, went_on, rounds = random.Random(kills), 0, 0, 0
    while killed < kills:
        rounds += 1
        home = place.directory / f"{form}_{kills}_{rounds}"
        made = home / place_in_home
        while not made.exists():
            running = fork(place, *line, "--data-home", home.name, moment=Eager())
            time.sleep(chance.uniform(0.1, 0.9) * seconds)
            running.kill()
            went_on += "going on after" in running.errors
            killed += running.exit_code() == -SIGKILL
        assert content_of(made) == expected
        # whatever a kill left behind is gone after the next start
        fork(place, *line, "--data-home", home.name).exit_code()
        assert half_made_datasets(home) == []
    assert went_on >= kills / 4, (went_on, killed, rounds)
