"""Times `diffcli runs ls` over many runs, hot: `python benchmarks/runs_ls.py [RUNS]` (10,000 by default)."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.runs import list_runs
from diffcli.config.encode import config_to_json
from diffcli.config.sections import RunConfig
from diffcli.records.training import MetricRow, Speed, TermMeans
from diffcli.registry.create import NewRun, create_run
from diffcli.registry.home import markers_of
from diffcli.registry.ids import run_id
from diffcli.registry.metrics import LoggedRow, append_metrics
from diffcli.registry.provenance import installed_versions
from diffcli.registry.run_record import DatasetFacts

_REPEATS = 5
_NEWEST = 20
_ROWS_PER_RUN = 30


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The fastest and the slowest of a few repeats."""

    what: str
    fastest_seconds: float
    slowest_seconds: float


def main() -> None:
    """Make the runs in a temporary directory, list them, print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory(prefix="runs-ls-") as directory:
        home = Path(directory)
        fill(home, count)
        timings = [
            timed(f"all {count} in one process", lambda: list_runs(home, limit=None)),
            timed(f"newest {_NEWEST} in one process", lambda: list_runs(home, limit=_NEWEST)),
            timed(f"`diffcli runs ls --all` of {count}", lambda: command_line(home, "--all")),
            timed(f"`diffcli runs ls` of {count}", lambda: command_line(home)),
        ]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, hot")
    for timing in timings:
        print(f"{timing.what}: {timing.fastest_seconds:.3f} to {timing.slowest_seconds:.3f} s")


def fill(home: Path, count: int) -> None:
    """One real run, copied: making each in earnest would wait for the disk a hundred thousand times."""
    first = create_run(home, _example())
    for step in range(1, _ROWS_PER_RUN + 1):
        append_metrics(first.paths.metrics, LoggedRow(attempt=1, row=_row(10 * step)))
    for number in range(2, count + 1):
        shutil.copytree(first.paths.directory, home / run_id(number))
        (markers_of(home) / str(number)).mkdir()


def timed(what: str, work: Callable[[], object]) -> Timing:
    """Time the work a few times, after once to warm up."""
    work()
    seconds = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return Timing(what=what, fastest_seconds=min(seconds), slowest_seconds=max(seconds))


def command_line(home: Path, *options: str) -> None:
    """What a user waits for, interpreter and all."""
    command = (sys.executable, "-m", "diffcli", "runs", "ls", "--runs", str(home), *options)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _example() -> NewRun:
    return NewRun(
        name="example",
        preset="cifar10",
        command_line=("diffcli", "train", "--preset", "cifar10"),
        config=config_to_json(RunConfig()),
        total_steps=500_000,
        versions=installed_versions(),
        git_commit=None,
        dataset=DatasetFacts(
            path="data/cifar10/train",
            content_hash="0" * 64,
            weak_hash=False,
            count=50_000,
            class_names=tuple(f"class {number}" for number in range(10)),
        ),
    )


def _row(step: int) -> MetricRow:
    term = TermMeans(overall=0.1234567, quartiles=(0.4321, 0.1, 0.01, 0.001))
    return MetricRow(
        step=step,
        images_seen=128 * step,
        loss=term,
        mse=term,
        vb=term,
        grad_norm=0.7,
        param_norm=120.5,
        lr=1e-4,
        loss_scale=None,
        speed=Speed(images_per_second=812.5, seconds=1.6, data_wait_share=0.01, memory_bytes=5 * 10**9),
    )


if __name__ == "__main__":
    main()
