"""The one large file in a zip, unpacked below the data home for as long as a preparation needs it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from diffcli.data.downloads.partial_file import PartialFile
from diffcli.data.sources.archives import Archive, Limits, open_archive
from diffcli.data.sources.source import places_identity
from diffcli.durable import require_space, storage_errors
from diffcli.errors import DiffcliError, InterruptedRunError, MissingError
from diffcli.images.decode import printable
from diffcli.records.datasets import PrepareListener

_DIRECTORY = ".unpacked"
# the largest that is published has 80 GB
_LIMITS = Limits(member_bytes=2**38)
_IDENTITY_LETTERS = 16


@contextlib.contextmanager
def unpacked(archive: Path, base: str, *, home: Path, listener: PrepareListener) -> Iterator[Path]:
    """The file of that name in a zip or tar; deleted afterwards, but for an interrupted preparation.

    Processes that need the same one share it, and the last of them deletes it. Errors: those of
    `open_archive`, MissingError when it holds no such file, LockedError, StorageError.
    """
    directory = home / _DIRECTORY
    target = directory / f"{places_identity([archive])[:_IDENTITY_LETTERS]}.{base}"
    descriptor = _held(target)
    while descriptor is None:
        with storage_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
        _unpack(archive, base, target, listener)
        descriptor = _held(target)
    keep = False
    try:
        yield target
    except (InterruptedRunError, KeyboardInterrupt):
        keep = True
        raise
    finally:
        if not keep and _is_last(descriptor):
            target.unlink(missing_ok=True)
        os.close(descriptor)
        _remove_empty(directory)


def _held(target: Path) -> int | None:
    """A descriptor that keeps other processes from deleting the file; None when there is none."""
    try:
        descriptor = os.open(target, os.O_RDONLY)
    except FileNotFoundError:
        return None
    # some cluster file systems know no locks; sharing is rarer than using those
    with contextlib.suppress(OSError):
        # waits for no longer than a deletion takes
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    if target.exists() and target.stat().st_ino == os.fstat(descriptor).st_ino:
        return descriptor
    # the last process before us has deleted it between our open and our lock
    os.close(descriptor)
    return None


def _is_last(descriptor: int) -> bool:
    """Whether no other process holds the file, and none will before the descriptor is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _unpack(archive: Path, base: str, target: Path, listener: PrepareListener) -> None:
    try:
        with (
            open_archive(archive, scratch=target.parent, limits=_LIMITS) as opened,
            PartialFile(target, hashing=False) as part,
        ):
            try:
                _copy(opened, base, part, listener)
            except BaseException:
                # half of it is of no use: the next attempt begins anew
                part.restart()
                raise
            part.become_whole()
    except (DiffcliError, KeyboardInterrupt):
        _remove_empty(target.parent)
        raise


def _copy(archive: Archive, base: str, part: PartialFile, listener: PrepareListener) -> None:
    members = [name for name in archive.sizes_bytes if name.rpartition("/")[2] == base]
    if len(members) != 1:
        raise MissingError(
            f"{printable(archive.location)} holds {len(members) or 'no'} {base}",
            remedy="give the archive as it was published",
        )
    # what a killed process left
    part.restart()
    size_bytes = archive.sizes_bytes[members[0]]
    require_space(part.path.parent, size_bytes)
    listener.notice(f"unpacking {base} ({size_bytes / 1e9:.1f} GB) to {part.path.parent}")
    for block in archive.blocks(members[0]):
        part.append(block)
        listener.progress(part.size_bytes, size_bytes)


def _remove_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()
