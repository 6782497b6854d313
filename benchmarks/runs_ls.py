"""Times `diffcli runs ls` over many runs: `python benchmarks/runs_ls.py [RUNS] [--cold] [--out FILE]`."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path

from diffcli.commands.runs import list_runs
from diffcli.config.encode import config_to_json
from diffcli.config.sections import RunConfig
from diffcli.records.training import MetricRow, Speed, TermMeans
from diffcli.registry.create import NewRun, create_run
from diffcli.registry.home import index_of, markers_of
from diffcli.registry.ids import run_id
from diffcli.registry.metrics import LoggedRow, append_metrics
from diffcli.registry.provenance import installed_versions
from diffcli.registry.run_record import DatasetFacts
from diffcli.registry.status import read_status, write_status

_REPEATS = 5
_NEWEST = 20
_ROWS_PER_RUN = 30
# the index takes no row of a run that changed just now
_SETTLING_SECONDS = 2.5


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The fastest and the slowest of a few repeats."""

    what: str
    fastest_seconds: float
    slowest_seconds: float


def main() -> None:
    """Make the runs in a temporary directory, list them, print the table."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="runs-ls-") as directory:
        home = Path(directory)
        fill(home, options.runs)
        time.sleep(_SETTLING_SECONDS)
        timings = measure(home, options.runs)
        if options.cold:
            timings += measure_cold(home, options.runs)
    machine = f"{os.cpu_count()} {platform.machine()} cores, Python {platform.python_version()}"
    text = "\n".join(
        [
            f"runs ls over {options.runs:,} runs, {date.today()}",
            "commit: ",
            f"machine: {machine}",
            f"seconds, best and worst of {_REPEATS}; cold: the system's caches were emptied before each",
            "",
            *(f"{t.what:<60}{t.fastest_seconds:8.3f}{t.slowest_seconds:8.3f}" for t in timings),
            "",
        ]
    )
    sys.stdout.write(text)
    if options.out is not None:
        options.out.write_text(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="?", type=int, default=10_000)
    parser.add_argument("--cold", action="store_true", help="also with empty caches (Linux, as root)")
    parser.add_argument("--out", type=Path, help="a file for the table")
    return parser.parse_args()


def measure(home: Path, count: int) -> list[Timing]:
    """All the ways to list them, from files in the system's cache."""
    newest, everything = partial(list_runs, home, limit=_NEWEST), partial(list_runs, home, limit=None)
    return [
        timed(f"newest {_NEWEST}, in one process", newest),
        timed("`diffcli runs ls`, process and all", partial(command_line, home)),
        timed(f"all {count:,}, in one process", everything),
        timed("the same without an index, which it writes", everything, partial(forget_index, home)),
        timed("`diffcli runs ls --all`, process and all", partial(command_line, home, "--all")),
        timed("`diffcli runs ls --all --json`, the same", partial(command_line, home, "--all", "--json")),
        timed("the start of a process, which lists no run", partial(command_line, home / "nothing")),
    ]


def measure_cold(home: Path, count: int) -> list[Timing]:
    """The same from files on the disk."""
    newest, everything = partial(list_runs, home, limit=_NEWEST), partial(list_runs, home, limit=None)
    return [
        timed(f"cold: newest {_NEWEST}, in one process", newest, empty_caches),
        timed(f"cold: all {count:,}, in one process", everything, empty_caches),
    ]


def forget_index(home: Path) -> None:
    """Let the next long list read every run."""
    index_of(home).unlink(missing_ok=True)


def empty_caches() -> None:
    """Let Linux forget the files, and the names and dates of files, that it has read."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def fill(home: Path, count: int) -> None:
    """One real run, copied: making each in earnest would wait for the disk a hundred thousand times."""
    first = create_run(home, _example())
    for step in range(1, _ROWS_PER_RUN + 1):
        append_metrics(first.paths.metrics, LoggedRow(attempt=1, row=_row(10 * step)))
    completed = replace(read_status(first.paths), state="completed", step=500_000, exit_code=0)
    write_status(first.paths, completed)
    for number in range(2, count + 1):
        shutil.copytree(first.paths.directory, home / run_id(number))
        (markers_of(home) / str(number)).mkdir()


def timed(what: str, work: Callable[[], object], before: Callable[[], object] = lambda: None) -> Timing:
    """Time the work a few times, after once to warm up; `before` is done before each, and not timed."""
    work()
    seconds = []
    for _ in range(_REPEATS):
        before()
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
