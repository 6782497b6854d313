"""Speed of diffcli's U-Net beside diffusers' UNet2DModel, both at the size of the cifar10 preset.

    python benchmarks/unet_speed.py --threads 2 --rounds 7 --out benchmarks/results

The two networks take turns inside one process, so that a change of the machine's load meets both alike.
Trust the ratios; the absolute figures belong to the machine. Needs the `bench` extra.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

import diffusers
import torch
from surroundings import commit, machine
from torch import Tensor, nn

from diffcli.config.sections import DataConfig, DiffusionConfig, ModelConfig, RunConfig
from diffcli.models.build import build_model

FORWARD_BATCH_IMAGES = 16
TRAIN_BATCH_IMAGES = 8
RESOLUTION = 32
CIFAR10 = RunConfig(
    data=DataConfig(resolution=RESOLUTION),
    model=ModelConfig(channels=128, channel_mult=(1, 2, 2, 2), res_blocks=3, dropout=0.3),
    diffusion=DiffusionConfig(steps=4000, schedule="cosine", variance="learned_range", objective="hybrid"),
)
# x [B, 3, H, W] and t [B] -> [B, 6, H, W]
Predict = Callable[[Tensor, Tensor], Tensor]
Job = Callable[[], None]


class Work(Enum):
    """What is timed."""

    FORWARD = "forward"
    TRAIN_STEP = "train step"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One network and how to call it."""

    name: str
    network: nn.Module
    predict: Predict


@dataclass(frozen=True, kw_only=True)
class Row:
    """Median images per second of both networks, and the median over rounds of theirs per our seconds."""

    work: str
    precision: str
    batch_images: int
    diffcli_images_per_second: float
    diffusers_images_per_second: float
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """The rows and what they were measured on."""

    measured_at: str
    commit: str
    machine: str
    threads: int
    rounds: int
    python: str
    torch: str
    diffusers: str
    diffcli_parameters: int
    diffusers_parameters: int
    rows: tuple[Row, ...]


def main() -> None:
    """Measure, print, and with --out write the report as JSON and text."""
    parser = argparse.ArgumentParser(description="diffcli's U-Net beside diffusers', at the size of cifar10")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each network")
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"], choices=["bf16", "fp32"])
    parser.add_argument("--out", type=Path, help="directory for unet_speed.json and unet_speed.txt")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report = measure(arguments.threads, arguments.rounds, arguments.precisions)
    text = as_text(report)
    print(text)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "unet_speed.json").write_text(
            json.dumps(dataclasses.asdict(report), indent=1) + "\n"
        )
        (arguments.out / "unet_speed.txt").write_text(text + "\n")


def measure(threads: int, rounds: int, precisions: list[str]) -> Report:
    """Every row of the table, for the given number of turns."""
    torch.manual_seed(0)
    contenders = [diffcli_network(), diffusers_network()]
    rows = []
    for precision in precisions:
        rows.append(measure_row(contenders, Work.FORWARD, precision, rounds))
        rows.append(measure_row(contenders, Work.TRAIN_STEP, precision, rounds))
    return Report(
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit(),
        machine=machine(),
        threads=threads,
        rounds=rounds,
        python=platform.python_version(),
        torch=torch.__version__,
        diffusers=diffusers.__version__,
        diffcli_parameters=size(contenders[0].network),
        diffusers_parameters=size(contenders[1].network),
        rows=tuple(rows),
    )


def measure_row(contenders: list[Contender], work: Work, precision: str, rounds: int) -> Row:
    """One kind of work in one precision."""
    make, batch_images = (
        (forward_work, FORWARD_BATCH_IMAGES) if work is Work.FORWARD else (train_work, TRAIN_BATCH_IMAGES)
    )
    ours, theirs = interleaved_seconds([make(c, batch_images, precision) for c in contenders], rounds)
    row = Row(
        work=work.value,
        precision=precision,
        batch_images=batch_images,
        diffcli_images_per_second=round(batch_images / statistics.median(ours), 2),
        diffusers_images_per_second=round(batch_images / statistics.median(theirs), 2),
        ratio=round(statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), 3),
    )
    print(f"measured {row.work}, {row.precision}: {row.ratio:.3f}", file=sys.stderr)
    return row


def diffcli_network() -> Contender:
    """Ours, at the size of the cifar10 preset."""
    network = build_model(CIFAR10)
    return Contender(name="diffcli", network=network, predict=network)


def diffusers_network() -> Contender:
    """diffusers' network of the same widths, depths, attention and dropout, as close as its options allow."""
    network = diffusers.UNet2DModel(
        sample_size=RESOLUTION,
        in_channels=3,
        out_channels=6,
        block_out_channels=(128, 256, 256, 256),
        layers_per_block=3,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=64,
        resnet_time_scale_shift="scale_shift",
        dropout=0.3,
        norm_num_groups=32,
        norm_eps=1e-5,
        downsample_padding=1,
        flip_sin_to_cos=True,
        freq_shift=0,
    )
    return Contender(name="diffusers", network=network, predict=lambda x, t: network(x, t).sample)


def forward_work(contender: Contender, batch_images: int, precision: str) -> Job:
    """One prediction as sampling makes it."""
    x, t = inputs(batch_images)

    @torch.inference_mode()
    def forward() -> None:
        contender.network.eval()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            contender.predict(x, t)

    return forward


def train_work(contender: Contender, batch_images: int, precision: str) -> Job:
    """One optimizer step on a squared error, dropout included."""
    x, t = inputs(batch_images)
    optimizer = torch.optim.AdamW(contender.network.parameters(), lr=1e-4)

    def train_step() -> None:
        contender.network.train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            predicted = contender.predict(x, t)
        loss = (predicted.float() - 1).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return train_step


def inputs(batch_images: int) -> tuple[Tensor, Tensor]:
    """Noise [B, 3, H, W] and timesteps [B]."""
    return torch.randn(batch_images, 3, RESOLUTION, RESOLUTION), torch.randint(0, 1000, (batch_images,))


def interleaved_seconds(jobs: list[Job], rounds: int) -> list[list[float]]:
    """Seconds of each job in each round; the order within a round alternates."""
    for job in jobs:
        job()
    seconds: list[list[float]] = [[] for _ in jobs]
    for turn in range(rounds):
        order = range(len(jobs)) if turn % 2 == 0 else reversed(range(len(jobs)))
        for i in order:
            started = time.perf_counter()
            jobs[i]()
            seconds[i].append(time.perf_counter() - started)
    return seconds


def as_text(report: Report) -> str:
    """The report as a table."""
    lines = [
        f"U-Net speed, {report.measured_at}, commit {report.commit}",
        f"{report.machine}; {report.threads} threads, medians of {report.rounds} interleaved rounds",
        f"python {report.python}, torch {report.torch}, diffusers {report.diffusers}",
        f"parameters: diffcli {report.diffcli_parameters:,}, diffusers {report.diffusers_parameters:,}",
        "",
        f"{'images per second':26}{'diffcli':>10}{'diffusers':>11}{'ratio':>8}",
    ]
    lines += [
        f"{f'{row.work}, {row.precision}, batch {row.batch_images}':26}"
        f"{row.diffcli_images_per_second:10.2f}{row.diffusers_images_per_second:11.2f}{row.ratio:8.3f}"
        for row in report.rows
    ]
    return "\n".join(lines)


def size(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    main()
