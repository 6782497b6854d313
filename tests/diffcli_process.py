"""diffcli as its users run it: a process with arguments, a directory, two streams and a status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# what a developer's shell may hold and a test must not depend on
_UNSET = (
    "PYTHONUNBUFFERED",
    "PYTHONIOENCODING",
    "NO_COLOR",
    "COLUMNS",
    "LINES",
    "RANK",
    "DIFFCLI_RUNS",
    "DIFFCLI_DATA",
)
_SECONDS = 120


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
