"""Train in several processes of this machine: start them, pass signals on, and tell how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffcli.commands.last_words import find_run, record_end
from diffcli.commands.launched_rank import LIFELINE, PROGRAM, STOP_SIGNALS
from diffcli.commands.rank_watch import RankEnd, RankWatch, Signals
from diffcli.errors import DiffcliError, UsageError
from diffcli.registry.paths import RunPaths
from diffcli.registry.process import ProcessIdentity, boot_id, host_name, living_process

if TYPE_CHECKING:
    from diffcli.workers import DeviceChoice

_HOST = "127.0.0.1"
_COUNT_GPUS = "import torch; print(torch.cuda.device_count())"
# exit codes that say no more than that another rank may know the reason
_VAGUE = (0, 1)


@dataclass(frozen=True, kw_only=True)
class Processes:
    """How many processes were asked for, on GPUs or on the CPU; at most one of the two is given."""

    gpus: int | None
    procs: int | None

    @property
    def count(self) -> int:
        """The number of processes."""
        return self.gpus or self.procs or 1

    def device(self, choice: DeviceChoice) -> DeviceChoice:
        """The device that all of them compute on; UsageError where the choice says something else."""
        if self.gpus is not None and self.procs is not None:
            raise UsageError("--gpus and --procs exclude each other", remedy="give one of them")
        if self.gpus is None and self.procs is None:
            return choice
        option, device = ("--gpus", "cuda") if self.gpus is not None else ("--procs", "cpu")
        if choice not in ("auto", device):
            raise UsageError(
                f"{option} computes on {device}, and --device is {choice}", remedy="leave out one of the two"
            )
        return "cuda" if self.gpus is not None else "cpu"


@dataclass(frozen=True, kw_only=True)
class LaunchRequest:
    """The processes to start, the arguments of each, and where to find the run that they train."""

    processes: Processes
    threads: int | None
    arguments: tuple[str, ...]
    runs_home: Path
    resume: str | None


def check_launchable(processes: Processes) -> None:
    """Raise UsageError when another launcher started this process, which then is a rank itself."""
    if (processes.gpus or processes.procs) and "RANK" in os.environ:
        raise UsageError(
            f"this is rank {os.environ['RANK']} of another launcher (RANK is set), and cannot launch ranks",
            remedy="leave out --gpus and --procs, or start diffcli without the other launcher",
        )


def launch(request: LaunchRequest) -> int:
    """Train in the processes asked for; the training's exit code.

    The ranks share this process's streams, and the first of them speaks. Raises UsageError when there are
    fewer GPUs, and DiffcliError, which names it, when a rank was killed.
    """
    if request.processes.gpus is not None:
        _check_gpus(request.processes.gpus)
    lifeline, held = os.pipe()
    try:
        with _reserved_port() as port, Signals() as signals:
            ranks = _start(request, port, lifeline)
            first = _identity(ranks[0].pid)
            watch = RankWatch(ranks)
            ends = watch.wait(signals)
    finally:
        os.close(lifeline)
        # from here, whatever happened, no rank stays
        os.close(held)
    return _outcome(request, ends, first, abandoned=watch.abandoned)


def _check_gpus(wanted: int) -> None:
    # in a process of its own, since torch is large, and its count heeds CUDA_VISIBLE_DEVICES
    counting = subprocess.run(
        [sys.executable, "-P", "-c", _COUNT_GPUS], capture_output=True, text=True, check=False
    )
    there = int(counting.stdout) if counting.stdout.strip().isdecimal() else 0
    if there < wanted:
        raise UsageError(
            f"--gpus {wanted} asks for more GPUs than can be used here: {there}",
            where=_visible_gpus(),
            remedy=f"use --gpus {there}" if there else "train on the CPU: --procs N, or --device cpu",
        )


def _visible_gpus() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f"CUDA_VISIBLE_DEVICES={visible}"


@contextlib.contextmanager
def _reserved_port() -> Iterator[int]:
    """A TCP port that the system gives to nobody else while the block lasts, and that the first rank may use.

    Two sockets may be bound to one port where both allow it and at most one listens (Linux; socket(7)). Other
    systems would send the ranks to the wrong one, so there it is only free at first.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((_HOST, 0))
        port = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        yield port


def _start(request: LaunchRequest, port: int, lifeline: int) -> list[subprocess.Popen[bytes]]:
    # they take signals when they are ready to
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        return [
            subprocess.Popen(
                [*_program(), *request.arguments],
                env=os.environ | _environment(request, rank, port, lifeline),
                stdin=subprocess.DEVNULL,
                pass_fds=[lifeline],
                # a Ctrl-C of the terminal reaches its own session; each rank is to get one, from here
                start_new_session=True,
            )
            for rank in range(request.processes.count)
        ]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)


def _program() -> tuple[str, ...]:
    """diffcli as a command line that finds its modules where this process found them."""
    as_module = sys.modules["__main__"].__spec__ is not None
    # a console script does not look for modules in the working directory, and `-m` alone would
    return (sys.executable, *(() if as_module else ("-P",)), "-m", "diffcli")


def _environment(request: LaunchRequest, rank: int, port: int, lifeline: int) -> dict[str, str]:
    world_size = request.processes.count
    here = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(port),
        LIFELINE: str(lifeline),
        PROGRAM: sys.argv[0],
    }
    if request.processes.procs is not None:
        here["ACCELERATE_USE_CPU"] = "true"
    if "OMP_NUM_THREADS" not in os.environ:
        here["OMP_NUM_THREADS"] = str(request.threads or max(1, _cores() // world_size))
    return here


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _identity(pid: int) -> ProcessIdentity:
    living = living_process(pid)
    return ProcessIdentity(
        host=host_name(), boot=boot_id(), pid=pid, started=living.started if living else ""
    )


def _outcome(
    request: LaunchRequest, ends: Sequence[RankEnd], first: ProcessIdentity, *, abandoned: bool
) -> int:
    """The exit code of the training, whose run says it too; DiffcliError when it ended with a killed rank.

    ends: first to last.
    """
    # before what ended because of it, though both may have been noticed at once
    killed = [end for end in ends if end.signal_number and not end.forced]
    code = training_exit_code(ends, killed=bool(killed), abandoned=abandoned)
    run = None
    if any(end.signal_number for end in ends):
        run = find_run(request.runs_home, first, resumed=request.resume)
    if run is not None:
        cause = (killed or [end for end in ends if end.exit_code])[0]
        record_end(run, first, reason=str(cause), exit_code=code)
    if killed and not abandoned:
        raise _lost(killed[0], run)
    return code


def training_exit_code(ends: Sequence[RankEnd], *, killed: bool, abandoned: bool) -> int:
    """The first rank's exit code; another's where that one only noticed that another was gone."""
    if abandoned:
        return 128 + signal.SIGINT
    if killed:
        return DiffcliError.exit_code
    # the first rank comes first; what an end was forced to says nothing
    in_order = sorted(ends, key=lambda end: end.rank)
    codes = [end.exit_code for end in in_order if not end.forced] or [DiffcliError.exit_code]
    telling = [code for code in codes if code not in _VAGUE]
    return telling[0] if telling else max(codes)


def _lost(killed: RankEnd, run: RunPaths | None) -> DiffcliError:
    by_the_system = "when memory runs out, the system kills: `dmesg` tells"
    return DiffcliError(
        str(killed),
        where=by_the_system if killed.signal_number == signal.SIGKILL else "",
        remedy=f"go on with: diffcli train --resume {run.directory.name}" if run else "",
    )
