"""Features of an archive against the network alone: `python benchmarks/feature_extraction.py [--out FILE]`.

Both take turns: a whole extraction, from the archive to features that are safe on the disk, and the same
batches through Inception, with weights that are drawn, from memory.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from surroundings import commit, machine

from diffcli.commands.feature_extraction import Extraction
from diffcli.commands.sampling_process import sampling_process
from diffcli.data.archive_dataset import ArchiveDataset, open_archive_dataset
from diffcli.evaluation.inception import InceptionFeatures, InceptionV3

_BATCH_SIZE = 16


class Silent:
    """Draws nothing."""

    def begin(self, verb: str) -> None:
        """Nothing."""

    def __call__(self, done: int, total: int) -> None:
        """Nothing."""

    def notice(self, text: str) -> None:
        """Nothing."""


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=64, help="of an image, pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="file for the report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        shape = (options.images, options.side, options.side, 3)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        np.savez(place / "images.npz", arr_0=images)
        with open_archive_dataset(place / "images.npz", scratch=place) as dataset:
            rounds = measured(dataset, images, place, rounds=options.rounds, threads=options.threads)
    text = report(rounds, options)
    print(text, end="")
    if options.out:
        options.out.write_text(text)


def measured(
    dataset: ArchiveDataset, images: np.ndarray, place: Path, *, rounds: int, threads: int
) -> list[tuple[float, float]]:
    """Seconds of the extraction and of the network alone, round by round."""
    with sampling_process("cpu", threads, Silent()) as process:
        extractor = InceptionFeatures(drawn_weights(), process.workers.device)
        batches = torch.from_numpy(images).split(_BATCH_SIZE)
        extractor(batches[0])
        times = []
        for number in range(rounds):
            extraction = Extraction(
                dataset=dataset,
                indices=torch.arange(len(images)),
                extractor=extractor,
                spatial=True,
                batch_size=_BATCH_SIZE,
            )
            began = time.perf_counter()
            extraction.computed(place / f"parts-{number}", process)
            between = time.perf_counter()
            for batch in batches:
                extractor(batch)
            times.append((between - began, time.perf_counter() - between))
    return times


def drawn_weights() -> dict[str, torch.Tensor]:
    """Of the right shapes, and small enough that nothing overflows."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(tensor.shape, generator=generator) / max(1, tensor[0].numel()) + 0.01
        for name, tensor in InceptionV3().state_dict().items()
    }


def report(rounds: list[tuple[float, float]], options: argparse.Namespace) -> str:
    """The table."""
    whole, alone = (options.images / statistics.median(seconds) for seconds in zip(*rounds, strict=True))
    ratio = statistics.median(extraction / network for extraction, network in rounds)
    return (
        f"Extracting features, {datetime.now(UTC).isoformat(timespec='seconds')}, commit {commit()}\n"
        f"{machine()}; {options.threads} threads\n"
        f"python {platform.python_version()}, torch {torch.__version__}\n"
        f"load of the machine at the end: {os.getloadavg()[0]:.1f}\n"
        f"medians of {options.rounds} rounds in turns\n\n"
        f"{options.images} images of {options.side}x{options.side}, batches of {_BATCH_SIZE}\n"
        f"{'from the archive to the disk':32}{whole:8.2f} images/s\n"
        f"{'the network alone':32}{alone:8.2f} images/s\n"
        f"{'time, as a multiple':32}{ratio:8.3f}\n"
    )


if __name__ == "__main__":
    main()
