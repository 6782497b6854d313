"""Real diffcli processes for trials: each runs one command line, and real signals stop it.

`start` runs `python -m diffcli`, through a launcher if need be. `fork` runs the same program split off from a
server that has only imported torch, which saves the seconds that this takes. Both give a `Started` process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import itertools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from diffcli.commands.prepare import DigitsRequest, prepare_digits
from diffcli.registry.metrics import read_metrics
from diffcli_process import fork_server, shell_environment

STEPS = 12
SAVE_EVERY = 4
# small enough for 30 ms a step, with everything in it that has a state or draws random numbers
PRESET = """
[data]
name = "digits"
resolution = 8
channels = 1
flip = true

[model]
channels = 32
channel_mult = [1]
res_blocks = 1
attention_resolutions = [8]
dropout = 0.1
classes = 10

[diffusion]
schedule = "cosine"
variance = "learned_range"
objective = "hybrid"

[training]
steps = 12
batch_size = 8
lr = 1e-3
lr_warmup_steps = 3
lr_anneal_steps = 20
grad_clip = 1.0
weight_decay = 0.01
ema_rates = [0.9, 0.99]
log_every = 3
save_every = 4
"""
_TIMEOUT_SECONDS = 120.0


class Trouble(Protocol):
    """What is to befall a process that `fork` starts; its `arm` is called there before the program runs."""

    def arm(self) -> None:
        """Lay the trap."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When a process signals itself: as it tells of an event of this kind at this step."""

    event: str
    step: int
    signal_number: signal.Signals

    def arm(self) -> None:
        """Lay the trap."""
        _at_event(self.event, self.step, lambda: os.kill(os.getpid(), self.signal_number))


@dataclass(frozen=True, kw_only=True)
class FullDisk:
    """From an event on, no file of the process can grow beyond a size."""

    event: str
    step: int
    file_bytes: int

    def arm(self) -> None:
        """Lay the trap."""
        limits = (self.file_bytes, resource.RLIM_INFINITY)
        _at_event(self.event, self.step, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits))


def _at_event(event_name: str, step: int, act: Callable[[], None]) -> None:
    from diffcli.console import training
    from diffcli.records.training import TrainingEvent

    class ActingScreen(training.TrainingScreen):
        def show(self, event: TrainingEvent) -> None:
            super().show(event)
            event_step = event.row.step if hasattr(event, "row") else event.step
            if (type(event).__name__, event_step) == (event_name, step):
                act()
                # until the thread that listens has seen a signal
                time.sleep(0.2)

    training.TrainingScreen = ActingScreen  # type: ignore[misc]


@dataclass(frozen=True, kw_only=True)
class NotFinite:
    """From a step on, counted from 1, the loss of one rank is not a number, or infinite."""

    step: int
    rank: int
    value: float

    def arm(self) -> None:
        """Lay the trap."""
        from diffcli.training import objective

        if int(os.environ.get("RANK", "0")) != self.rank:
            return
        steps = itertools.count(1)
        losses_of = objective.training_losses

        def training_losses(*arguments: Any, **settings: Any) -> Any:
            terms = losses_of(*arguments, **settings)
            if next(steps) < self.step:
                return terms
            return dataclasses.replace(terms, loss=terms.loss + self.value)

        objective.training_losses = training_losses


# where training may be killed, as the module's attribute that is called there, by what its arguments name
FAILPOINTS = {
    "before the first file": ("diffcli.training.checkpoints", "_write_files", "before", ""),
    "after a tensor file": ("diffcli.training.checkpoints", "save_file", "after", ""),
    "before the manifest": ("diffcli.durable", "sha256", "before", ".staging-step"),
    "before the sync": ("diffcli.durable", "commit_directory", "before", ".staging-step"),
    "before the rename": ("pathlib.Path", "rename", "before", ".staging-step"),
    "after the rename": ("pathlib.Path", "rename", "after", ".staging-step"),
    "after the commit": ("diffcli.durable", "commit_directory", "after", ".staging-step"),
    "before retention": ("diffcli.training.checkpoints", "_set_aside", "before", "step-"),
    "in retention": ("diffcli.durable", "remove_tree", "before", ".removing-"),
    "after retention": ("diffcli.training.checkpoints", "_set_aside", "after", "step-"),
    "before the optimizer step": ("diffcli.training.step", "step_unless", "before", ""),
    "after the optimizer step": ("diffcli.training.step", "step_unless", "after", ""),
    "before a row": ("diffcli.registry.metrics", "append_line", "before", ""),
    "after a row": ("diffcli.registry.metrics", "append_line", "after", ""),
    "before an event": ("diffcli.registry.events", "append_line", "before", ""),
    "before the status": ("pathlib.Path", "replace", "before", "status.json"),
    "after the status": ("pathlib.Path", "replace", "after", "status.json"),
}
# the same of an evaluation, whose name must end on `record` where that is what is written
EVALUATION_FAILPOINTS = {
    "before a part": ("pathlib.Path", "replace", "before", ".parts/.batch-"),
    "after a part": ("pathlib.Path", "replace", "after", ".parts/.batch-"),
    "before the record": ("pathlib.Path", "replace", "before", "record.json."),
    "after the record": ("pathlib.Path", "replace", "after", "record.json."),
}


@dataclass(frozen=True, kw_only=True)
class Failpoint:
    """A process is killed at the n-th visit of a place in the program, counted from 1."""

    place: str
    visit: int

    def arm(self) -> None:
        """Lay the trap."""
        owner, name, when, about = (FAILPOINTS | EVALUATION_FAILPOINTS)[self.place]
        place: Any = Path if owner == "pathlib.Path" else importlib.import_module(owner)
        wrapped = getattr(place, name)
        visits = itertools.count(1)

        def killed(*arguments: Any, **settings: Any) -> Any:
            here = about in str(arguments[0]) and next(visits) == self.visit
            if here and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = wrapped(*arguments, **settings)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(place, name, killed)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A directory with the prepared digits, the preset `tiny.toml`, and the runs that commands make there."""

    directory: Path

    @property
    def runs(self) -> Path:
        """The directory of the runs."""
        return self.directory / "runs"

    def run(self, number: int = 1) -> Path:
        """The directory of a run."""
        return self.runs / f"run-{number}"


def make_bench(directory: Path, preset: str = PRESET) -> Bench:
    """Prepare what commands need, but for torch in seconds."""
    prepare_digits(DigitsRequest(home=directory / "data", force=False))
    (directory / "tiny.toml").write_text(preset)
    return Bench(directory=directory)


NEW = ("train", "--preset", "./tiny.toml", "--device", "cpu")
RESUME = ("train", "--resume", "run-1", "--device", "cpu")


class _Process(Protocol):
    @property
    def pid(self) -> int: ...

    def exit_code(self, timeout: float) -> int | None: ...


class Started:
    """A process that runs one command line of diffcli."""

    def __init__(self, process: _Process, outputs: Path) -> None:
        self._process = process
        self._outputs = outputs

    @property
    def pid(self) -> int:
        """Of the process itself, which is a launcher's if there is one."""
        return self._process.pid

    def kill(self) -> None:
        """End it, and the ranks that a launcher has started."""
        pids = [self.pid, *ranks_of(self).values()] if self.running() else []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.exit_code(0) is None

    def exit_code(self, timeout: float = _TIMEOUT_SECONDS) -> int:
        """Wait for its end; minus the signal's number when it was killed."""
        code = self._process.exit_code(timeout)
        if code is None:
            self.kill()
            raise AssertionError(f"still there after {timeout} s; stderr:\n{self.errors}")
        return code

    def succeeds(self) -> Started:
        """Wait for an end with exit code 0."""
        code = self.exit_code()
        assert code == 0, self.errors
        return self

    @property
    def output(self) -> str:
        """What it wrote to stdout so far."""
        return self._outputs.with_suffix(".out").read_text()

    @property
    def errors(self) -> str:
        """What it wrote to stderr so far."""
        path = self._outputs.with_suffix(".err")
        # a process that was forked just now has not come to open it
        return path.read_text() if path.exists() else ""


_numbers = itertools.count(1)
_all_started: list[Started] = []


def _noted(started: Started) -> Started:
    _all_started.append(started)
    return started


def options(*settings: str) -> list[str]:
    """The settings as command-line options."""
    return [option for setting in settings for option in ("--set", setting)]


def kill_survivors() -> None:
    """End what a failed test has left running."""
    while _all_started:
        _all_started.pop().kill()


def start(bench: Bench, *arguments: str, launcher: tuple[str, ...] = (), **environment: str) -> Started:
    """Run `python -m diffcli` in its own process group, in the bench's directory."""
    outputs = bench.directory / f"process-{next(_numbers)}"
    with outputs.with_suffix(".out").open("w") as out, outputs.with_suffix(".err").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, *launcher, "-m", "diffcli", *arguments],
            cwd=bench.directory,
            env=shell_environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )
    return _noted(Started(_Opened(process), outputs))


@dataclass(frozen=True)
class _Opened:
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def exit_code(self, timeout: float) -> int | None:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None


def fork(
    bench: Bench,
    *arguments: str,
    moment: Trouble | None = None,
    environment: Mapping[str, str] | None = None,
) -> Started:
    """Run the program in a process of its own without the wait for the imports."""
    outputs = bench.directory / f"process-{next(_numbers)}"
    process = fork_server().Process(
        target=_run_program, args=(bench.directory, arguments, outputs, moment, dict(environment or {}))
    )
    process.start()
    return _noted(Started(_Forked(process), outputs))


@dataclass(frozen=True)
class _Forked:
    process: Any

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def exit_code(self, timeout: float) -> int | None:
        self.process.join(timeout)
        code: int | None = self.process.exitcode
        return code


def fork_ranks(
    bench: Bench, world_size: int, *arguments: str, moment: Trouble | None = None
) -> list[Started]:
    """Run the program as the CPU ranks of one training, as a launcher would; the first heeds the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "ACCELERATE_USE_CPU": "true",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
    }
    return [
        fork(
            bench,
            *arguments,
            moment=moment,
            environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world_size)
    ]


def _run_program(
    directory: Path,
    arguments: tuple[str, ...],
    outputs: Path,
    moment: Trouble | None,
    environment: dict[str, str],
) -> None:
    os.setsid()
    os.chdir(directory)
    os.environ.update(environment)
    for descriptor, suffix in ((1, ".out"), (2, ".err")):
        file = os.open(outputs.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    sys.argv = ["diffcli", *arguments]
    if moment is not None:
        moment.arm()
    from diffcli.__main__ import main

    main()


def wait_until(condition: Callable[[], Any], process: Started | None = None) -> None:
    """Wait for something to happen; it must not be too late for it once the process, if any, has ended."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not condition():
        assert process is None or process.running(), process.errors
        assert time.monotonic() < deadline, process.errors if process else "waited in vain"
        time.sleep(0.002)


def ranks_of(launcher: Started) -> dict[int, int]:
    """The pids of the ranks that a launcher has started, by rank."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            environment = (stat.parent / "environ").read_text().split("\0")
        except OSError:
            continue
        ranks = [entry.removeprefix("RANK=") for entry in environment if entry.startswith("RANK=")]
        if parent == launcher.pid and ranks:
            found[int(ranks[0])] = int(stat.parent.name)
    return found


def checkpoint(run: Path, step: int) -> Path:
    """The directory of a checkpoint."""
    return run / "checkpoints" / f"step-{step:06d}"


def status(run: Path) -> dict[str, Any]:
    """status.json."""
    content: dict[str, Any] = json.loads((run / "status.json").read_text())
    return content


def attempts(run: Path) -> list[dict[str, Any]]:
    """attempts/*.json, first to last."""
    return [json.loads(path.read_text()) for path in sorted((run / "attempts").iterdir())]


def leftovers(run: Path) -> list[Path]:
    """Files and directories of a run that are nobody's."""
    return [path for path in run.rglob(".*") if path.name.startswith(".")]


def rows(run: Path) -> list[Any]:
    """The rows of metrics that count, without what depends on the speed."""
    log = read_metrics(run / "metrics.jsonl")
    return [dataclasses.replace(logged.row, speed=None) for logged in log.rows]


def content(checkpoint_directory: Path) -> dict[str, str]:
    """The hash of every file of a checkpoint: tensors bit by bit, counters digit by digit."""
    return dict(_hashes(checkpoint_directory))


def _hashes(directory: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(directory.iterdir()):
        yield path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def assert_same_training(run: Path, other: Path, *, step: int = STEPS) -> None:
    """Two runs have come to the same bits: weights, averages, moments, counters, and rows of metrics."""
    files, expected = content(checkpoint(run, step)), content(checkpoint(other, step))
    assert {"model.safetensors", "optimizer.safetensors", "ema-0.9.safetensors", "state.json"} < set(files)
    different = sorted(
        name for name in files.keys() | expected.keys() if files.get(name) != expected.get(name)
    )
    assert different == [], f"not the same: {different}"
    assert rows(run) == rows(other), f"{rows(run)}\n{rows(other)}"
