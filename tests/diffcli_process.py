"""diffcli as its users run it: a process with arguments, a directory, two streams and a status."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

# what a developer's shell may hold and a test must not depend on
_UNSET = (
    "PYTHONUNBUFFERED",
    "PYTHONIOENCODING",
    "NO_COLOR",
    "COLUMNS",
    "LINES",
    "FORCE_COLOR",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "ACCELERATE_USE_CPU",
    "DIFFCLI_RUNS",
    "DIFFCLI_DATA",
)
_SECONDS = 120
# torch imports its compiler with the first optimizer, which takes as long as torch itself
_PRELOADED = [
    "accelerate",
    "diffcli.cli.app",
    "diffcli.commands.likelihood",
    "diffcli.commands.prepare",
    "diffcli.commands.run_details",
    "diffcli.commands.run_export",
    "diffcli.commands.run_import",
    "diffcli.commands.runs",
    "diffcli.commands.sample",
    "diffcli.commands.train",
    "pytest",
    "torch",
    "torch._dynamo",
    "torch._inductor.config",
]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on stdout."""
        return json.loads(self.out)


def shell_environment(**changes: str) -> dict[str, str]:
    """A plain environment: no terminal, one thread, nothing set for diffcli but the changes."""
    plain = {name: value for name, value in os.environ.items() if name not in _UNSET}
    return {**plain, "OMP_NUM_THREADS": "1", "TERM": "xterm", "LANG": "C.UTF-8", **changes}


@cache
def fork_server() -> ForkServerContext:
    """The one server of the test session, with torch imported once; all that it forks have its environment.

    A second one cannot be: Python keeps the first, with whatever environment that was started in.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    before = dict(os.environ)
    # torch counts its threads, and fixes what it warns of, when it is imported
    os.environ.clear()
    os.environ.update(shell_environment(TORCH_CPP_LOG_LEVEL="ERROR"))
    forkserver.ensure_running()
    os.environ.clear()
    os.environ.update(before)
    return context


def run_diffcli(*arguments: str, directory: Path, **changes: str) -> Ended:
    """Run `python -m diffcli` to its end, in a directory, with changes to a plain environment."""
    return ended(
        subprocess.run(
            [sys.executable, "-m", "diffcli", *arguments],
            cwd=directory,
            env=shell_environment(**changes),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    )


def ended(process: subprocess.CompletedProcess[bytes]) -> Ended:
    """What a finished process left."""
    return Ended(
        status=process.returncode,
        out=process.stdout.decode(errors="surrogateescape"),
        err=process.stderr.decode(errors="surrogateescape"),
    )
