"""How much memory this process may still take; loads no torch."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_KIB = 1024


def available_memory_bytes(root: Path = Path("/")) -> int:
    """Bytes that the machine, this process's control groups and its own limits (`ulimit`) leave.

    root: where /proc and /sys are. On a system without /proc, all of the machine's memory.
    """
    limits = (*_of_control_groups(root), *_of_the_process(root))
    return max(0, min((_of_the_machine(root), *limits)))


def _of_the_machine(root: Path) -> int:
    available = _amounts(root / "proc/meminfo").get("MemAvailable")
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if available is None else available


def _of_the_process(root: Path) -> Iterator[int]:
    taken = _amounts(root / "proc/self/status")
    for limit, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        allowed, _ = resource.getrlimit(limit)
        if allowed != resource.RLIM_INFINITY and name in taken:
            yield allowed - taken[name]


def _amounts(file: Path) -> dict[str, int]:
    """The lines `name: 12 kB` of a file in /proc, in bytes; none where there is no such file."""
    amounts: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            name, _, amount = line.partition(":")
            if amount.endswith(" kB"):
                amounts[name] = int(amount.split()[0]) * _KIB
    return amounts


@dataclass(frozen=True, kw_only=True)
class _Hierarchy:
    """Where one version of control groups is mounted, and what it calls its files."""

    mount: str
    limit: str
    usage: str
    reclaimable: str


_VERSION_1 = _Hierarchy(
    mount="sys/fs/cgroup/memory",
    limit="memory.limit_in_bytes",
    usage="memory.usage_in_bytes",
    reclaimable="total_inactive_file",
)
_VERSION_2 = _Hierarchy(
    mount="sys/fs/cgroup", limit="memory.max", usage="memory.current", reclaimable="inactive_file"
)


def _of_control_groups(root: Path) -> Iterator[int]:
    """What is left of each limit on this process's group and on those around it."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if "memory" in controllers.split(","):
                yield from _left(root / _VERSION_1.mount, group, _VERSION_1)
            elif not controllers:
                yield from _left(root / _VERSION_2.mount, group, _VERSION_2)


def _left(mount: Path, group: str, hierarchy: _Hierarchy) -> Iterator[int]:
    directory = mount / group.lstrip("/")
    # inside a container the path may be one outside of it; its own group is then the mounted one
    for level in (directory, *directory.parents):
        if not level.is_relative_to(mount):
            return
        # no file where there is no limit, and the word "max" for none
        with contextlib.suppress(OSError, ValueError):
            limit = int((level / hierarchy.limit).read_text())
            usage = int((level / hierarchy.usage).read_text())
            yield limit - usage + _reclaimable_bytes(level / "memory.stat", hierarchy)


def _reclaimable_bytes(statistics: Path, hierarchy: _Hierarchy) -> int:
    """Cached files, which count as used and make room when it is needed."""
    for line in statistics.read_text().splitlines():
        name, _, amount = line.partition(" ")
        if name == hierarchy.reclaimable:
            return int(amount)
    return 0
