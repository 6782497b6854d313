"""Memory and time of a training pass with and without `model.checkpoint_blocks`.

    python benchmarks/checkpoint_blocks.py --threads 2 --rounds 5 --out benchmarks/results/NAME.txt

Runs on CUDA if there is a GPU, else on the CPU. Memory is what a forward and backward pass takes beside
weights and gradients: on CUDA by torch's own count, on a CPU as the growth of the peak of a process of its
own, and in bytes that autograd keeps. Times are of pairs of passes that take turns, on a CPU in processor
seconds of all threads, which other load disturbs least; trust their ratio. A preset that is too large for the
device is only estimated, as `diffcli train --dry-run` does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from surroundings import commit, machine, process_peak_bytes
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from diffcli.config.resolve import resolve
from diffcli.config.sections import RunConfig
from diffcli.models.activations import activation_bytes_per_image
from diffcli.models.build import build_model
from diffcli.models.conditioning import Conditioning

PRECISIONS = ("fp32", "bf16")
PRESETS = ("cifar10", "lsun_bedroom")
# images per pass; a CPU only estimates the larger preset
CPU_IMAGES = {"cifar10": 16}
CUDA_IMAGES = {"cifar10": 64, "lsun_bedroom": 4}
MEGABYTE = 10**6


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network in one precision, with a number of images per pass; 0: only estimated."""

    preset: str
    precision: str
    device: str
    images: int

    def config(self, *, recompute: bool) -> RunConfig:
        """The preset with the setting."""
        overrides = (
            f"training.precision={self.precision}",
            f"model.checkpoint_blocks={str(recompute).lower()}",
        )
        return resolve(preset=self.preset, overrides=overrides).config


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A figure without and with the setting."""

    without: float
    with_it: float

    @property
    def ratio(self) -> float:
        """With per without."""
        return self.with_it / self.without


class Pass:
    """A forward and backward pass of a network in training, on gradients that are there already."""

    def __init__(self, case: Case, *, recompute: bool) -> None:
        config = case.config(recompute=recompute)
        torch.manual_seed(0)
        self._device = torch.device(case.device)
        self._autocast = torch.autocast(case.device, torch.bfloat16, enabled=case.precision == "bf16")
        self.network = build_model(config).to(self._device).train()
        for parameter in self.network.parameters():
            parameter.grad = torch.ones_like(parameter)
        size, channels = config.data.resolution, config.data.channels
        self._x = torch.randn(case.images, channels, size, size, device=self._device)
        self._t = torch.zeros(case.images, device=self._device)

    def run(self) -> None:
        """Forward, backward, and on CUDA to the end of both."""
        self.forward().square().mean().backward()
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def forward(self) -> Tensor:
        """Forward, in the case's precision."""
        with self._autocast:
            output: Tensor = self.network(self._x, self._t, Conditioning())
        return output


def kept_bytes(case: Case, *, recompute: bool) -> int:
    """What autograd keeps between the forward and the backward pass, weights aside."""
    timed = Pass(case, recompute=recompute)
    weights = {parameter.untyped_storage() for parameter in timed.network.parameters()}
    kept: set[torch.UntypedStorage] = set()

    def keep(tensor: Tensor) -> Tensor:
        kept.add(tensor.untyped_storage())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        timed.forward()
    return sum(storage.nbytes() for storage in kept - weights)


def peak_bytes(case: Case, threads: int, *, recompute: bool) -> int:
    """What a pass takes at its peak, beside what was there before."""
    torch.set_num_threads(threads)
    timed = Pass(case, recompute=recompute)
    if case.device == "cuda":
        # cuDNN and cuBLAS keep what they allocate first
        timed.run()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        timed.run()
        return torch.cuda.max_memory_allocated() - before
    before = process_peak_bytes()
    timed.run()
    return process_peak_bytes() - before


def in_a_process_of_its_own(case: Case, threads: int, *, recompute: bool) -> int:
    """`peak_bytes` where nothing was allocated before."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as process:
        return process.submit(peak_bytes, case, threads, recompute=recompute).result()


def seconds(case: Case, rounds: int) -> tuple[Pair, float]:
    """The median seconds of a pass, and the median over the rounds of their ratio."""
    clock = time.perf_counter if case.device == "cuda" else time.process_time
    passes = [Pass(case, recompute=recompute) for recompute in (False, True)]
    for timed in passes:
        timed.run()
    turns: list[Pair] = []
    for turn in range(rounds):
        taken = [0.0, 0.0]
        for index in (0, 1) if turn % 2 == 0 else (1, 0):
            started = clock()
            passes[index].run()
            taken[index] = clock() - started
        turns.append(Pair(without=taken[0], with_it=taken[1]))
    medians = Pair(
        without=statistics.median(turn.without for turn in turns),
        with_it=statistics.median(turn.with_it for turn in turns),
    )
    return medians, statistics.median(turn.ratio for turn in turns)


def report(case: Case, threads: int, rounds: int) -> list[str]:
    """The lines of one case."""
    images = case.images or 1
    estimated = pair(*(activation_bytes_per_image(case.config(recompute=r)) * images for r in (False, True)))
    lines = [f"{case.preset}, {case.precision}, {images} image{'s' * (images > 1)}"]
    if not case.images:
        return [*lines, in_megabytes("estimated peak (meta device)", estimated)]
    if case.device == "cpu":
        kept = pair(*(kept_bytes(case, recompute=recompute) for recompute in (False, True)))
        lines.append(in_megabytes("kept for the backward pass", kept))
    peak = pair(*(in_a_process_of_its_own(case, threads, recompute=r) for r in (False, True)))
    lines.append(in_megabytes("estimated peak", estimated))
    lines.append(in_megabytes("peak", peak))
    taken, ratio = seconds(case, rounds)
    unit = "seconds" if case.device == "cuda" else "processor seconds"
    lines.append(row(f"{unit} of a pass", f"{taken.without:.3f}", f"{taken.with_it:.3f}", ratio))
    return lines


def pair(without: float, with_it: float) -> Pair:
    """Both figures."""
    return Pair(without=without, with_it=with_it)


def in_megabytes(name: str, figures: Pair) -> str:
    """A line of sizes."""
    return row(
        f"{name}, MB",
        f"{figures.without / MEGABYTE:.1f}",
        f"{figures.with_it / MEGABYTE:.1f}",
        figures.ratio,
    )


def row(name: str, without: str, with_it: str, ratio: float) -> str:
    """A line of the table."""
    return f"  {name:36}{without:>12}{with_it:>12}{ratio:10.3f}"


def cases(device: str, images: int | None) -> list[Case]:
    """What is measured on a device."""
    sizes = CUDA_IMAGES if device == "cuda" else CPU_IMAGES
    return [
        Case(preset=preset, precision=precision, device=device, images=images or sizes.get(preset, 0))
        for preset in PRESETS
        for precision in PRECISIONS
    ]


def main() -> None:
    """Measure, print, and with --out write the text."""
    parser = argparse.ArgumentParser(description="memory and time with and without model.checkpoint_blocks")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each network")
    parser.add_argument("--images", type=int, help="per pass, for every preset; default: by device")
    parser.add_argument("--note", default="", help="what else ran on the machine")
    parser.add_argument("--out", type=Path, help="file for the text")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lines = [
        f"model.checkpoint_blocks, {datetime.now(UTC).isoformat(timespec='seconds')}",
        f"commit: {commit()}",
        f"{torch.cuda.get_device_name() if device == 'cuda' else machine()}; "
        f"{arguments.threads} threads, medians of {arguments.rounds} pairs",
        *([arguments.note] if arguments.note else []),
        f"python {platform.python_version()}, torch {torch.__version__}",
        "",
        f"{'':38}{'without':>12}{'with':>12}{'ratio':>10}",
    ]
    for case in cases(device, arguments.images):
        lines += report(case, arguments.threads, arguments.rounds)
        print(lines[-1], file=sys.stderr)
    text = "\n".join(lines)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
