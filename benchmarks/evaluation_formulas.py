"""Seconds and memory of the formulas of image evaluation, on features of the size of Inception's.

    python benchmarks/evaluation_formulas.py --threads 2 --out benchmarks/results/NAME.txt

Each formula runs in a process of its own, on features that are drawn there, so that its peak of memory is
its own; the peak before it began is told beside it (Python, torch, the features and their making). CPU
seconds are those of all threads, which other load on the machine disturbs least (with
OMP_WAIT_POLICY=passive, so that threads that wait take none). `--scale 0.1` is a quick look at whether all of
it runs, `--large` adds sets of 50,000 images.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from surroundings import commit, machine, process_peak_bytes
from torch import Tensor

from diffcli.evaluation.bootstrap import bootstrap_frechet
from diffcli.evaluation.frechet import frechet_distance, frechet_distance_of_features
from diffcli.evaluation.inception_score import InceptionScore
from diffcli.evaluation.infinity import frechet_at_infinity, rows_needed
from diffcli.evaluation.kernel_distance import kernel_distance
from diffcli.evaluation.manifold import density_coverage, precision_recall
from diffcli.evaluation.moments import Moments, StreamingMoments, moments_of
from diffcli.evaluation.nearest import nearest_neighbours

# pool_3 of Inception, and its classes
DIMENSIONS = 2048
CLASSES = 1008
FEW, MANY, LARGE = 1_000, 10_000, 50_000
BATCH = 64
MEGABYTE = 10**6


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the sets are: everything is multiplied by `scale`, dimensions too."""

    scale: float

    def __call__(self, count: int) -> int:
        return max(20, int(count * self.scale))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds of each round, by the clock and of all threads; the peak of memory before and after them."""

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    before_bytes: int
    peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A formula: `prepare` draws its features and gives what is measured. goal: what is asked of it."""

    name: str
    prepare: Callable[[Size], Callable[[], object]]
    goal: str = ""
    large: bool = False


# ---- what is measured ----


def features(count: int, dimensions: int, seed: int) -> Tensor:
    """Features whose variances fall as those of a network do, with a mean: float32 [count, dimensions]."""
    drawn = torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))
    return drawn.mul_(torch.logspace(0, -2, dimensions)).add_(0.4)


def streaming_moments(size: Size) -> Callable[[], object]:
    some = features(size(MANY), size(DIMENSIONS), 0)

    def run() -> Moments:
        streaming = StreamingMoments(some.shape[1])
        for batch in some.split(BATCH):
            streaming.add(batch)
        return streaming.moments()

    return run


def inception_score(size: Size) -> Callable[[], object]:
    probabilities = torch.randn(size(LARGE), CLASSES).softmax(dim=1)

    def run() -> object:
        score = InceptionScore()
        for batch in probabilities.split(BATCH):
            score.add(batch)
        return score.score()

    return run


def two_moments(size: Size) -> tuple[Moments, Moments]:
    dimensions = size(DIMENSIONS)
    first, second = (moments_of(features(2 * dimensions, dimensions, seed)) for seed in (0, 1))
    return first, second


def frechet(size: Size) -> Callable[[], object]:
    first, second = two_moments(size)
    return lambda: frechet_distance(first, second)


def frechet_by_matrix_root(size: Size) -> Callable[[], object]:
    from scipy.linalg import sqrtm

    first, second = two_moments(size)
    product = (first.covariance @ second.covariance).numpy()
    return lambda: sqrtm(product)


def frechet_of_few(size: Size) -> Callable[[], object]:
    first, second = (features(size(FEW), size(DIMENSIONS), seed) for seed in (0, 1))
    return lambda: frechet_distance_of_features(first, second)


def two_sets(size: Size, samples: int) -> tuple[Tensor, Tensor]:
    return features(size(MANY), size(DIMENSIONS), 0), features(size(samples), size(DIMENSIONS), 1)


def precision_and_recall(size: Size) -> Callable[[], object]:
    reference, samples = two_sets(size, MANY)
    return lambda: precision_recall(reference, samples)


def precision_and_recall_in_half(size: Size) -> Callable[[], object]:
    reference, samples = two_sets(size, MANY)
    return lambda: precision_recall(reference, samples, arithmetic="float16")


def precision_and_recall_of_50k(size: Size) -> Callable[[], object]:
    reference, samples = two_sets(size, LARGE)
    return lambda: precision_recall(reference, samples)


def density_and_coverage(size: Size) -> Callable[[], object]:
    reference, samples = two_sets(size, MANY)
    return lambda: density_coverage(reference, samples)


def kernel(size: Size) -> Callable[[], object]:
    reference, samples = two_sets(size, MANY)
    return lambda: kernel_distance(samples, reference, seed=0)


def infinity(size: Size) -> Callable[[], object]:
    return extrapolated(size, MANY)


def infinity_of_50k(size: Size) -> Callable[[], object]:
    return extrapolated(size, LARGE)


def extrapolated(size: Size, count: int) -> Callable[[], object]:
    dimensions = size(DIMENSIONS)
    samples = features(max(rows_needed(dimensions), size(count)), dimensions, 0)
    reference, _ = two_moments(size)
    return lambda: frechet_at_infinity(samples, reference, seed=0)


def bootstrap(size: Size) -> Callable[[], object]:
    samples = features(size(MANY), size(DIMENSIONS), 0)
    reference, _ = two_moments(size)
    return lambda: bootstrap_frechet(samples, reference, seed=0)


def nearest(size: Size) -> Callable[[], object]:
    stored, queries = features(size(LARGE), size(DIMENSIONS), 0), features(size(FEW), size(DIMENSIONS), 1)
    return lambda: nearest_neighbours(queries, stored, k=5)


SUBJECTS = (
    Subject(name="moments of 10k, batches of 64", prepare=streaming_moments, goal="1.3 s"),
    Subject(name="Inception Score of 50k, batches of 64", prepare=inception_score),
    Subject(name="Frechet distance of moments", prepare=frechet, goal="3 s"),
    Subject(name="  scipy's sqrtm of the product alone", prepare=frechet_by_matrix_root),
    Subject(name="Frechet distance of the features of 1k and 1k", prepare=frechet_of_few),
    Subject(name="precision and recall, 10k and 10k", prepare=precision_and_recall, goal="30 s, 1500 MB"),
    Subject(name="  in float16", prepare=precision_and_recall_in_half),
    Subject(name="  of 10k and 50k", prepare=precision_and_recall_of_50k, large=True),
    Subject(name="density and coverage, 10k and 10k", prepare=density_and_coverage),
    Subject(name="kernel distance, 10k and 10k", prepare=kernel),
    Subject(name="Frechet distance at infinity, 10k", prepare=infinity),
    Subject(name="  of 50k", prepare=infinity_of_50k, large=True),
    Subject(name="bootstrap of a Frechet distance, 10k", prepare=bootstrap),
    Subject(name="5 nearest of 50k to each of 1k", prepare=nearest),
)


# ---- how ----


def measured(subject: Subject, size: Size, threads: int, rounds: int) -> Measured:
    """Run in a process that has done nothing else."""
    torch.set_num_threads(threads)
    run = subject.prepare(size)
    before = process_peak_bytes()
    seconds, cpu_seconds = [], []
    for _ in range(rounds):
        started_at, cpu_before = time.perf_counter(), time.process_time()
        run()
        seconds.append(time.perf_counter() - started_at)
        cpu_seconds.append(time.process_time() - cpu_before)
    return Measured(
        seconds=tuple(seconds),
        cpu_seconds=tuple(cpu_seconds),
        before_bytes=before,
        peak_bytes=process_peak_bytes(),
    )


def in_a_process_of_its_own(subject: Subject, size: Size, threads: int, rounds: int) -> Measured:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as process:
        return process.submit(measured, subject, size, threads, rounds).result()


# ---- what came out ----


def heading(arguments: argparse.Namespace) -> list[str]:
    return [
        f"Formulas of evaluation, {datetime.now(UTC).isoformat(timespec='seconds')}, commit {commit()}",
        f"{machine()}; {arguments.threads} threads, {arguments.rounds} rounds, scale {arguments.scale:g}"
        + (f"; {arguments.note}" if arguments.note else ""),
        f"python {platform.python_version()}, torch {torch.__version__}, scipy {scipy_version()}",
        f"load of the machine at the start: {os.getloadavg()[0]:.1f}",
        "",
        f"{'features of ' + str(Size(scale=arguments.scale)(DIMENSIONS)) + ' dimensions':48}"
        f"{'s, best':>9}{'s, median':>11}{'CPU s, best':>13}{'MB before':>11}{'MB peak':>9}  goal",
    ]


def row(subject: Subject, found: Measured) -> str:
    return (
        f"{subject.name:48}{min(found.seconds):9.2f}{statistics.median(found.seconds):11.2f}"
        f"{min(found.cpu_seconds):13.2f}"
        f"{found.before_bytes / MEGABYTE:11.0f}{found.peak_bytes / MEGABYTE:9.0f}  {subject.goal}"
    ).rstrip()


def scipy_version() -> str:
    try:
        return version("scipy")
    except PackageNotFoundError:
        return "not installed"


def chosen(arguments: argparse.Namespace) -> Sequence[Subject]:
    return [
        subject
        for subject in SUBJECTS
        if (arguments.large or not subject.large)
        and arguments.only in subject.name
        and (subject.prepare is not frechet_by_matrix_root or scipy_version() != "not installed")
    ]


def main() -> None:
    """Measure, print, and with --out write the text."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of all sizes")
    parser.add_argument("--large", action="store_true", help="also with 50,000 samples, which takes minutes")
    parser.add_argument("--only", default="", help="part of the name of what to measure")
    parser.add_argument("--note", default="", help="what else ran on the machine")
    parser.add_argument("--out", type=Path, help="file for the text")
    arguments = parser.parse_args()
    lines = heading(arguments)
    print("\n".join(lines), flush=True)
    for subject in chosen(arguments):
        found = in_a_process_of_its_own(
            subject, Size(scale=arguments.scale), arguments.threads, arguments.rounds
        )
        lines.append(row(subject, found))
        print(lines[-1], flush=True)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
