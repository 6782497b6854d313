"""`diffcli runs` as a process, without the seconds that the rest of the program takes to load."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

# the part of the program under test with the one error handler around it
PROGRAM = """
import sys
from diffcli.cli.handler import run
from diffcli.cli.runs import app
status = run(lambda arguments: app(args=list(arguments), prog_name="diffcli runs"), sys.argv[1:])
"""
EXIT = "sys.exit(status)"


def environment(home: Path, **extra: str) -> dict[str, str]:
    """That of a terminal of 256 colours, with a runs directory."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    return {**kept, "DIFFCLI_RUNS": str(home), "TERM": "xterm-256color", **extra}


def runs(home: Path, *arguments: str, ending: str = EXIT, **extra: str) -> subprocess.CompletedProcess[str]:
    """`diffcli runs` to its end, with pipes; ending: what the program does last."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + ending, *arguments],
        env=environment(home, **extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def on_terminal(home: Path, *arguments: str, typed: str = "", **extra: str) -> tuple[int, str]:
    """Exit status and what the terminal showed, with all three streams on it."""
    master, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM + EXIT, *arguments],
        env=environment(home, **extra),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        os.write(master, typed.encode())
        shown = b""
        try:
            while part := os.read(master, 65536):
                shown += part
        except OSError:
            pass  # the other end of a pseudo-terminal ends like this
        process.wait(timeout=60)
    os.close(master)
    return process.returncode, shown.decode()
