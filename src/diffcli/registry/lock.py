"""The lock of a run, held by the process that trains it and freed by the system when that process ends.

It is a POSIX record lock (fcntl), which a forked data worker does not inherit. Such a lock is also freed when
its process closes any descriptor of the file, so a process never opens a lock file that it holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from diffcli import durable
from diffcli.errors import LockedError, MissingError
from diffcli.registry.json_records import read_error
from diffcli.registry.paths import RunPaths
from diffcli.registry.process import host_name

_FileKey = tuple[int, int]
# device and inode of the lock files this process holds, with its pid: a forked child holds none of them
_held: dict[_FileKey, int] = {}


@dataclass(frozen=True, kw_only=True)
class LockHolder:
    """Who holds a lock."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"{self.pid}@{self.host}"


class RunLock:
    """A held lock; leave its block, or call release, to free it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._key = _key_of(os.fstat(descriptor))
        _held[self._key] = os.getpid()

    def release(self) -> None:
        """Free the lock; twice does no harm."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            _held.pop(self._key, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def acquire_lock(run: RunPaths) -> RunLock:
    """Take the lock of a run at once or not at all.

    Raises LockedError that names pid@host of the holder, MissingError when the run is gone, and StorageError
    where the file system refuses.
    """
    path = run.lock
    while True:
        if _held_here(path):
            raise _locked(run, LockHolder(pid=os.getpid(), host=host_name()))
        descriptor = _open_lock_file(run)
        try:
            _lock(descriptor, run)
            # between open and lock the run may have gone to the trash, and the file with it
            if _same_file(descriptor, path):
                _sign(descriptor)
                return RunLock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def lock_holder(run: RunPaths) -> LockHolder | None:
    """Who holds the lock of a run, without touching it; None when it is free or nobody can tell."""
    if _held_here(run.lock):
        return LockHolder(pid=os.getpid(), host=host_name())
    try:
        descriptor = os.open(run.lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise read_error(error, run.lock) from error
    try:
        pid = _blocking_pid(descriptor)
        return None if pid is None else _signature(descriptor) or LockHolder(pid=pid, host=host_name())
    finally:
        os.close(descriptor)


def _open_lock_file(run: RunPaths) -> int:
    try:
        return os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except FileNotFoundError as error:
        raise MissingError(f"the run {run.directory} is gone", remedy="see `diffcli runs ls`") from error
    except OSError as error:
        raise durable.storage_error(error, run.lock) from error


def _lock(descriptor: int, run: RunPaths) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise _locked(run, _signature(descriptor)) from error
    except OSError as error:
        raise durable.storage_error(error, run.lock) from error


def _locked(run: RunPaths, holder: LockHolder | None) -> LockedError:
    return LockedError(
        f"{run.directory.name} is in use by {holder or 'another process'}",
        where=f"lock: {run.lock}",
        remedy="wait for that process, or stop it first",
    )


def _sign(descriptor: int) -> None:
    # a full disk must not keep a run from being locked: the signature only serves messages
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}@{host_name()}\n".encode(), 0)


def _signature(descriptor: int) -> LockHolder | None:
    """The holder as it signed; None when it has not come to that yet."""
    pid, _, host = os.pread(descriptor, 512, 0).decode(errors="replace").strip().partition("@")
    return LockHolder(pid=int(pid), host=host) if pid.isdecimal() and host else None


def _blocking_pid(descriptor: int) -> int | None:
    """The pid of a lock that would keep us from locking (fcntl(2), F_GETLK); None when there is none."""
    try:
        if sys.platform == "darwin":
            layout = "@qqihh"  # start, length, pid, type, whence
            asked = struct.pack(layout, 0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
            _, _, pid, kind, _ = struct.unpack(layout, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        else:
            layout = "@hhqqi"  # type, whence, start, length, pid, as on 64-bit Linux
            asked = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(layout, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    except OSError:
        # a file system without locks: nobody could have taken one
        return None
    return None if kind == fcntl.F_UNLCK else int(pid)


def _held_here(path: Path) -> bool:
    if not _held:
        return False
    try:
        return _held.get(_key_of(path.stat())) == os.getpid()
    except OSError:
        return False


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return _key_of(os.fstat(descriptor)) == _key_of(path.stat())
    except FileNotFoundError:
        return False


def _key_of(status: os.stat_result) -> _FileKey:
    return status.st_dev, status.st_ino
