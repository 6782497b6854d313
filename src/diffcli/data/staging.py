"""A directory that is filled beside its final place and appears there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from diffcli.durable import commit_directory, remove_tree, storage_errors, sync_directory
from diffcli.errors import LockedError, UsageError

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextlib.contextmanager
def staged_directory(target: Path, *, replace: bool) -> Iterator[Path]:
    """An empty directory for the block to fill, which becomes `target` when the block ends without an error.

    Errors: UsageError when the target is there and is not to be replaced, LockedError when another process is
    preparing the same target, StorageError. After any error the target is as it was and nothing else is left.
    """
    with _storage_parents(target), _locked_staging(target) as staging:
        _finish_broken_replacement(target)
        if target.exists() and not replace:
            raise overwrite_refusal(target)
        yield staging
        _commit(staging, target, replace=replace)


def overwrite_refusal(target: Path) -> UsageError:
    """The refusal to overwrite."""
    return UsageError(
        f"{target} is already there", remedy="use it as it is, prepare under another --name, or add --force"
    )


@contextlib.contextmanager
def _storage_parents(target: Path) -> Iterator[None]:
    """Make the parent directories, and after an error take away those that were made and are empty."""
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        with storage_errors(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for parent in made:
                parent.rmdir()
        raise


@contextlib.contextmanager
def _locked_staging(target: Path) -> Iterator[Path]:
    """An empty staging directory that no other live process holds; it is deleted after an error."""
    staging = target.parent / f".{target.name}.staging"
    with storage_errors(staging):
        staging.mkdir(exist_ok=True)
        descriptor = os.open(staging, os.O_RDONLY)
    try:
        if not _is_ours(descriptor, staging):
            raise LockedError(
                f"another process is preparing {target} now", remedy="wait until it is done, or stop it"
            )
        try:
            with storage_errors(staging):
                _empty(staging)
            yield staging
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    finally:
        os.close(descriptor)


def _is_ours(descriptor: int, staging: Path) -> bool:
    """Lock the directory; False when another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # some cluster file systems know no locks; preparing twice at once is rarer than using those
        if error.errno not in _NO_LOCKS:
            raise
    # the holder before us may have renamed or deleted the directory between our open and our lock
    return staging.exists() and staging.stat().st_ino == os.fstat(descriptor).st_ino


def _empty(directory: Path) -> None:
    for leftover in directory.iterdir():
        leftover.unlink()


def _commit(staging: Path, target: Path, *, replace: bool) -> None:
    aside = _aside(target)
    with storage_errors(target):
        if replace and target.exists():
            target.rename(aside)
            sync_directory(target.parent)
    try:
        commit_directory(staging, target)
    except BaseException:
        _finish_broken_replacement(target)
        raise
    remove_tree(aside)


def _finish_broken_replacement(target: Path) -> None:
    """Put back, or drop, what a replacement set aside before it broke off."""
    aside = _aside(target)
    if not aside.exists():
        return
    if target.exists():
        remove_tree(aside)
    else:
        with storage_errors(target):
            aside.rename(target)


def _aside(target: Path) -> Path:
    return target.parent / f".{target.name}.replaced"
