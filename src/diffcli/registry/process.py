"""Which process is meant: a pid alone is given again, also after a restart of the machine."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# proc_pid_stat(5): fields counted from the one after the command's name
_STATE_FIELD, _START_FIELD = 0, 19
_SUSPENDED = ("T", "t")
_GONE = ("Z", "X", "x")


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """One process among all that ever were: its host, the host's boot, its pid and when it started.

    `boot` and `started` are opaque and only compared; either is empty where the system does not tell.
    """

    host: str
    boot: str
    pid: int
    started: str


@dataclass(frozen=True, kw_only=True)
class LivingProcess:
    """What the system says of a process that exists."""

    started: str
    suspended: bool


def this_process() -> ProcessIdentity:
    """The identity of the calling process."""
    pid = os.getpid()
    living = living_process(pid)
    return ProcessIdentity(
        host=host_name(), boot=boot_id(), pid=pid, started=living.started if living else ""
    )


def host_name() -> str:
    """The name of this machine."""
    return os.uname().nodename


@cache
def boot_id() -> str:
    """A name for the time since this machine was started, the same in all its containers; may be empty."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return _output_of("sysctl", "-n", "kern.bootsessionuuid")


def living_process(pid: int) -> LivingProcess | None:
    """A process of this machine; None when there is none with that pid."""
    return _from_proc(pid) if sys.platform == "linux" else _from_ps(pid)


def _from_proc(pid: int) -> LivingProcess | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # the command's name may hold spaces and parentheses
    fields = text.rpartition(")")[2].split()
    state = fields[_STATE_FIELD]
    if state in _GONE:
        return None
    return LivingProcess(started=fields[_START_FIELD], suspended=state in _SUSPENDED)


def _from_ps(pid: int) -> LivingProcess | None:
    state, _, started = _output_of("ps", "-o", "state=,lstart=", "-p", str(pid)).partition(" ")
    if not state or state[0] in _GONE:
        return None
    return LivingProcess(started=started.strip(), suspended=state[0] in _SUSPENDED)


def _output_of(*command: str) -> str:
    # not needed on Linux, and slow to import beside `runs ls`
    import subprocess

    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
        )
    except OSError:
        return ""
    return finished.stdout.strip()
