"""One training in one process and in two: the same images in the same places, the same curve of the loss."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import statistics
from pathlib import Path

import pytest

from runs_in_processes import (
    NEW,
    STEPS,
    attempts,
    fork,
    fork_ranks,
    make_bench,
    rows,
    start,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Witness:
    """Every process notes which image, as pixels, label and flip, stands where in which global batch."""

    directory: Path

    def arm(self):
        from diffcli.data import batches

        batches_of, numbers = batches.BatchSource.batches, itertools.count()

        def noted(source, steps, positions):
            found = batches_of(source, steps, positions)
            lines = [
                f"{step} {position} {digest(image)} {int(label)} {int(flip)}\n"
                for step, batch in zip(steps, found, strict=True)
                for position, image, label, flip in zip(
                    positions, batch.images, batch.labels, batch.flips, strict=True
                )
            ]
            self.directory.mkdir(exist_ok=True)
            (self.directory / f"{positions.start}-{next(numbers)}").write_text("".join(lines))
            return found

        batches.BatchSource.batches = noted

    def seen(self):
        """All notes of all processes, each once, by step and position."""
        lines = [line for file in self.directory.iterdir() for line in file.read_text().splitlines()]
        assert len(lines) == len(set(lines))
        return sorted(lines)


def digest(image):
    return hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_same_images_stand_in_the_same_places_of_every_batch(world_size, tmp_path):
    one, several = make_bench(tmp_path / "one"), make_bench(tmp_path / "several")
    witnesses = [Witness(directory=tmp_path / name) for name in ("seen-by-one", "seen-by-several")]
    fork(one, *NEW, moment=witnesses[0]).succeeds()
    ranks = fork_ranks(several, world_size, *NEW, moment=witnesses[1])
    assert [rank.exit_code() for rank in ranks] == [0] * world_size
    assert attempts(several.run())[0]["world_size"] == world_size
    alone = witnesses[0].seen()
    assert len(alone) == STEPS * 8
    assert witnesses[1].seen() == alone


_DEMO_STEPS = 500
_WINDOW_ROWS = 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_has_the_same_curve_in_two_processes_within_the_noise_of_dropout(tmp_path, capsys):
    bench = make_bench(tmp_path)
    demo = ("train", "--preset", "digits", "--steps", str(_DEMO_STEPS), "--threads", "1")
    demo += ("--set", "training.log_every=10")
    # the same images, timesteps and noise, and other dropout: nothing else tells microbatches apart
    ways = (("--device", "cpu"), ("--device", "cpu", "--set", "training.microbatch=32"), ("--procs", "2"))
    for way in ways:
        trained = start(bench, *demo, *way)
        assert trained.exit_code(900) == 0, trained.errors
    one, other_dropout, two = (windows(bench.run(number)) for number in (1, 2, 3))
    assert attempts(bench.run(3))[0]["world_size"] == 2
    noise = [abs(a - b) / a for a, b in zip(one, other_dropout, strict=True)]
    difference = [abs(a - b) / a for a, b in zip(one, two, strict=True)]
    with capsys.disabled():
        print("\nstep    one process   other dropout   two processes   (loss, means over 50 steps)")
        for number, losses in enumerate(zip(one, other_dropout, two, strict=True), start=1):
            print(f"{50 * number:4d}    {losses[0]:11.5f}   {losses[1]:13.5f}   {losses[2]:13.5f}")
        print(
            "relative difference, root mean square: "
            f"dropout {rms(noise):.4f}, processes {rms(difference):.4f}"
        )
    assert one[-1] < 0.5 * one[0]
    # two samples of one noise: the ratio of their spreads is near 1
    assert rms(difference) < 2 * rms(noise)


def windows(run):
    """The means of the loss over every 50 steps."""
    losses = [row.loss.overall for row in rows(run)]
    assert len(losses) == _DEMO_STEPS // 10
    return [
        statistics.fmean(losses[first : first + _WINDOW_ROWS])
        for first in range(0, len(losses), _WINDOW_ROWS)
    ]


def rms(values):
    return statistics.fmean(value**2 for value in values) ** 0.5
