"""Files and directories that appear whole or not at all, also after a power cut."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffcli.errors import StorageError

_TEMPORARY_SUFFIX = ".tmp"


def _read_umask() -> int:
    # the only way to read it is to set it, for the whole process: so once, before there are threads
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


_UMASK = _read_umask()
_REMEDIES = {
    errno.ENOSPC: "free some space on that disk, then try again",
    errno.EDQUOT: "your quota there is used up: delete something, then try again",
    errno.EFBIG: "a limit on file sizes is in force there (ulimit -f)",
    errno.EROFS: "that file system is read-only: choose another directory",
    errno.EACCES: "you may not write there: change the permissions or choose another directory",
    errno.EPERM: "you may not write there: change the permissions or choose another directory",
}


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def storage_error(error: OSError, path: Path) -> StorageError:
    """The StorageError that tells what an OSError at `path` means."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return StorageError(
        f"cannot write {path}: {reason}",
        remedy=_REMEDIES.get(error.errno or 0, "look at the disk and the path, then try again"),
    )


def require_space(directory: Path, needed_bytes: int) -> None:
    """Raise StorageError unless that many bytes are free where the directory lies."""
    with storage_errors(directory):
        free = shutil.disk_usage(directory).free
    if free < needed_bytes:
        raise StorageError(
            f"not enough space in {directory}: {needed_bytes / 2**20:,.1f} MiB are needed, "
            f"{free / 2**20:,.1f} MiB are free",
            remedy=_REMEDIES[errno.ENOSPC],
        )


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the bytes of a file survive a power cut."""
    sync_directory(path)  # a descriptor is a descriptor


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically; StorageError when that fails, and the old file is then still there."""
    with storage_errors(path):
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY_SUFFIX
        )
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files that only their owner may read
            give_usual_mode(Path(temporary))
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def give_usual_mode(path: Path) -> None:
    """Give a file the permissions that the umask leaves to new ones."""
    path.chmod(0o666 & ~_UMASK)


def clear_temporaries(directory: Path, name: str = "*") -> None:
    """Delete what killed writers of the files called `name` left behind; nobody may be writing them."""
    with storage_errors(directory):
        for leftover in directory.glob(f".{name}.*{_TEMPORARY_SUFFIX}"):
            leftover.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # a path that is no text becomes an escape, which JSON knows too
    write_bytes(path, text.encode(errors="backslashreplace"))


def commit_directory(staging: Path, final: Path, *, untouched: str = "") -> None:
    """Give a finished staging directory its final name, everything in it synced before and the name after.

    untouched: name of files that are not opened, because closing them would free a lock.
    """
    with storage_errors(final):
        for parent, _, files in os.walk(staging):
            for name in set(files) - {untouched}:
                sync_file(Path(parent, name))
            sync_directory(Path(parent))
        staging.rename(final)
        sync_directory(final.parent)


def remove_tree(directory: Path) -> None:
    """Delete a directory and what is in it; no error when it is not there."""
    with storage_errors(directory), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
