"""A directory that is filled beside its final place and appears there whole or not at all.

What a killed or stopped process has filled stays there, with a journal beside it, for the next to go on from.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffcli.durable import (
    clear_temporaries,
    commit_directory,
    remove_tree,
    storage_errors,
    sync_directory,
    write_json,
)
from diffcli.errors import InterruptedRunError, LockedError, UsageError

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
_JOURNAL_SCHEMA = 1


@dataclass(kw_only=True)
class Staging:
    """The directory to fill; `done` images of the same request are durable in it from before.

    request: a digest of all that decides what the directory will hold; journal: says whose and how many are
    in it; other_request: what an interrupted preparation left was of another request, and is gone.
    """

    directory: Path
    journal: Path
    request: str
    done: int = 0
    other_request: bool = False

    def keep(self, done: int) -> None:
        """Note that the first `done` images would survive a power cut, their files being synced."""
        with storage_errors(self.directory):
            sync_directory(self.directory)
        write_json(self.journal, {"schema": _JOURNAL_SCHEMA, "request": self.request, "done": done})
        self.done = done

    def start_anew(self) -> None:
        """Forget and delete what is there."""
        with storage_errors(self.directory):
            self.journal.unlink(missing_ok=True)
            for leftover in self.directory.iterdir():
                leftover.unlink()
        self.done = 0


@contextlib.contextmanager
def staged_directory(target: Path, *, request: str, replace: bool) -> Iterator[Staging]:
    """A directory for the block to fill, which becomes `target` when the block ends without an error.

    Errors: UsageError when the target is there and is not to be replaced, LockedError when another process is
    preparing the same target, StorageError. After any error the target is as it was; nothing else is left,
    but after an InterruptedRunError what was kept, for the next block with the same request.
    """
    with _storage_parents(target), _locked_staging(target, request) as staging:
        _finish_broken_replacement(target)
        if target.exists() and not replace:
            raise overwrite_refusal(target)
        yield staging
        _commit(staging.directory, target, replace=replace)
        with storage_errors(staging.journal):
            staging.journal.unlink(missing_ok=True)


def overwrite_refusal(target: Path) -> UsageError:
    """The refusal to overwrite."""
    return UsageError(
        f"{target} is already there", remedy="use it as it is, prepare under another --name, or add --force"
    )


def forget_finished(target: Path) -> None:
    """Delete the journal that a process left when it was killed right after its directory had appeared."""
    staging = _staging_of(target)
    if target.exists() and not staging.exists():
        with contextlib.suppress(OSError):
            _journal_beside(staging).unlink(missing_ok=True)


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
def _locked_staging(target: Path, request: str) -> Iterator[Staging]:
    """The staging directory, which no other live process holds, empty but for what can be gone on from."""
    directory = _staging_of(target)
    with storage_errors(directory):
        directory.mkdir(exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        if not _is_ours(descriptor, directory):
            raise LockedError(
                f"another process is preparing {target} now", remedy="wait until it is done, or stop it"
            )
        staging = Staging(directory=directory, journal=_journal_beside(directory), request=request)
        try:
            _take_up(staging)
            yield staging
        except InterruptedRunError:
            if not staging.done:
                _drop(staging)
            raise
        except BaseException:
            _drop(staging)
            raise
    finally:
        os.close(descriptor)


def _take_up(staging: Staging) -> None:
    """Find out how much is there of the same request; empty the directory when it is nothing."""
    clear_temporaries(staging.journal.parent, staging.journal.name)
    found = _journal_of(staging.journal)
    if found is not None and found[0] == staging.request and any(staging.directory.iterdir()):
        staging.done = found[1]
        return
    staging.other_request = found is not None and any(staging.directory.iterdir())
    staging.start_anew()


def _journal_of(path: Path) -> tuple[str, int] | None:
    """The request of an interrupted preparation and the images it kept; None when nothing can be known."""
    try:
        found = json.loads(path.read_text())
        if found["schema"] != _JOURNAL_SCHEMA:
            return None
        return str(found["request"]), int(found["done"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _drop(staging: Staging) -> None:
    with contextlib.suppress(OSError):
        staging.journal.unlink(missing_ok=True)
    shutil.rmtree(staging.directory, ignore_errors=True)


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


def _staging_of(target: Path) -> Path:
    return target.parent / f".{target.name}.staging"


def _journal_beside(staging: Path) -> Path:
    return staging.with_name(f"{staging.name}.json")


def _aside(target: Path) -> Path:
    return target.parent / f".{target.name}.replaced"
