"""On what a benchmark ran: commit and processor; and what its process has used."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from pathlib import Path

_KIBIBYTE = 1024


def commit() -> str:
    """The commit of the source tree, with a plus sign if files were changed after it."""
    try:
        shown = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return "unknown"
    return shown.stdout.strip() or "unknown"


def machine() -> str:
    """The processor in words, and its cores."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return f"{platform.system()} {platform.machine()}"
    lines = cpuinfo.read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores seen" if names else platform.machine()


def process_peak_bytes() -> int:
    """The most memory that this process has used so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # what getrusage gives includes the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * _KIBIBYTE
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KIBIBYTE
