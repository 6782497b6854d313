"""What a checkpoint costs a training of the cifar10 preset: the pause, the writing, and the steps beside it.

    python benchmarks/save_cost.py --batch 16 --microbatch 8 --rounds 5 --out benchmarks/results

A round takes a few steps alone, then saves while it goes on taking steps until the checkpoint is on disk. On
a CPU a global batch of 128 takes half a minute; a smaller one makes the bar for the pause harder, not easier.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from surroundings import commit, machine

from diffcli.commands.assemble import Assembly, assemble
from diffcli.config.resolve import resolve
from diffcli.config.sections import RunConfig
from diffcli.models.conditioning import Conditioning
from diffcli.records.training import CheckpointSaved
from diffcli.training.host_copy import HostBuffers
from diffcli.training.objective import Examples
from diffcli.training.retention import Retention
from diffcli.training.saver import BackgroundSaver, Save, Store
from diffcli.training.state import content_of
from diffcli.training.step import draw
from diffcli.workers import Workers, WorkersSettings


@dataclass(frozen=True, kw_only=True)
class Round:
    """Seconds of one round; `steps_beside` were taken while the checkpoint was written."""

    step_alone: float
    pause: float
    writing: float
    steps_beside: int
    lost_beside: float
    checkpoint_bytes: int


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A training that takes steps on random images."""

    config: RunConfig
    workers: Workers
    assembly: Assembly
    examples: Examples

    def step_seconds(self) -> float:
        """Take one step and give how long it took."""
        state = self.assembly.state
        training, shape = self.config.training, self.examples.x_start.shape[1:]
        positions = self.workers.share(training.batch_size)
        started = time.monotonic()
        self.assembly.step.take(self.examples, draw(state, training, positions, shape))
        if self.workers.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic() - started


def main() -> None:
    """Measure and print, and write the same to a file."""
    arguments = parsed()
    bench = assembled(arguments)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        rounds = measured(bench, Path(directory), arguments.rounds)
    text = report(bench, rounds)
    print(text, end="")
    if arguments.out:
        (arguments.out / f"save_cost_{bench.workers.device.type}.txt").write_text(text)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=128, help="global batch, images")
    parser.add_argument("--microbatch", type=int, default=0, help="images per pass; 0: the batch")
    parser.add_argument("--precision", default="bf16", choices=("fp32", "bf16"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--directory", type=Path, default=Path(), help="where to save, on the disk in question"
    )
    parser.add_argument("--out", type=Path, help="directory for the report")
    return parser.parse_args()


def assembled(arguments: argparse.Namespace) -> Bench:
    preset = resolve(preset="cifar10").config
    config = replace(preset, training=replace(preset.training, batch_size=arguments.batch))
    workers = Workers(
        WorkersSettings(
            device=arguments.device,
            precision=arguments.precision,
            threads=arguments.threads,
            deterministic=False,
        )
    )
    size = config.data.resolution
    images = torch.rand(arguments.batch, config.data.channels, size, size, device=workers.device) * 2 - 1
    return Bench(
        config=config,
        workers=workers,
        assembly=assemble(config, workers, microbatch=arguments.microbatch),
        examples=Examples(x_start=images, conditioning=Conditioning()),
    )


def measured(bench: Bench, directory: Path, count: int) -> list[Round]:
    retention = Retention(keep_last=2, keep_every=0, pinned=frozenset)
    store = Store(
        checkpoints=directory / "checkpoints", ema_snapshots=directory / "ema-snapshots", retention=retention
    )
    with BackgroundSaver(store, HostBuffers(bench.workers.device)) as saver:
        for _ in range(3):
            bench.step_seconds()
        # the first save allocates what all later ones use
        rounds = [one_round(bench, saver) for _ in range(count + 1)]
    return rounds[1:]


def one_round(bench: Bench, saver: BackgroundSaver) -> Round:
    alone = statistics.median(bench.step_seconds() for _ in range(3))
    state = bench.assembly.state
    started = time.monotonic()
    content = content_of(state, [state.sums.tensor().cpu()])
    for _ in saver.begin(Save(step=state.step, checkpoint=content, ema_snapshot=None)):
        pass
    if bench.workers.device.type == "cuda":
        torch.cuda.synchronize()
    pause = time.monotonic() - started
    beside: list[float] = []
    saved: list[CheckpointSaved] = []
    while not saved:
        beside.append(bench.step_seconds())
        saved += [event for event in saver.finished() if isinstance(event, CheckpointSaved)]
    return Round(
        step_alone=alone,
        pause=pause,
        writing=saved[0].seconds,
        steps_beside=len(beside),
        lost_beside=max(0.0, sum(beside) - len(beside) * alone),
        checkpoint_bytes=saved[0].size_bytes,
    )


def report(bench: Bench, rounds: list[Round]) -> str:
    training = bench.config.training
    step = statistics.median(one.step_alone for one in rounds)
    pause = statistics.median(one.pause for one in rounds)
    lost = statistics.median(one.lost_beside for one in rounds)
    writing = statistics.median(one.writing for one in rounds)
    share = (pause + lost) / (training.save_every * step)
    return (
        f"Cost of a save, cifar10 preset, {datetime.now(UTC).isoformat(timespec='seconds')}, "
        f"commit {commit()}\n"
        f"{processor(bench.workers.device)}; {bench.workers.threads} threads, {bench.workers.precision}, "
        f"global batch {training.batch_size}, medians of {len(rounds)} rounds\n"
        f"python {platform.python_version()}, torch {torch.__version__}\n\n"
        f"checkpoint                          {rounds[0].checkpoint_bytes / 1e6:10.1f} MB\n"
        f"a step alone                        {step:10.3f} s\n"
        f"pause for a save                    {pause:10.3f} s  ({pause / step:.2f} steps; "
        f"worst {max(one.pause for one in rounds):.3f} s)\n"
        f"writing, in the background          {writing:10.3f} s\n"
        f"lost by the steps beside it         {lost:10.3f} s\n"
        f"pause and loss, of {training.save_every:,} steps     {100 * share:10.4f} %\n"
    )


def processor(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else machine()


if __name__ == "__main__":
    main()
