"""A file in the making: NAME.part beside its final place, and what the server said of it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from diffcli.durable import storage_error, storage_errors, sync_directory, write_json
from diffcli.errors import LockedError

_BLOCK_BYTES = 2**22


class PartialFile:
    """NAME.part, locked while this context is open; `most_bytes` is the most that it ever held."""

    def __init__(self, target: Path, *, hashing: bool = True) -> None:
        """target: the place of the whole file, in a directory that is there; hashing: for `sha256`."""
        self.path = target.with_name(f"{target.name}.part")
        self.size_bytes = self.most_bytes = 0
        self._target = target
        self._hashing = hashing
        self._note = target.with_name(f"{target.name}.part.json")
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        with storage_errors(self.path):
            # opened to append: made when it is not there, and else kept
            self._file: IO[bytes] = self.path.open("a+b")
        try:
            self._lock()
            self.size_bytes = self.most_bytes = os.fstat(self._file.fileno()).st_size
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as failure:  # what was buffered finds no room
            if error is None:
                raise storage_error(failure, self.path) from failure
        if self.size_bytes == 0:
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)

    def hashed(self) -> Iterator[int]:
        """Take what is there into the digest; yields the bytes taken so far."""
        taken = 0
        while taken < self.size_bytes:
            block = os.pread(self._file.fileno(), min(_BLOCK_BYTES, self.size_bytes - taken), taken)
            self._digest.update(block)
            taken += len(block)
            yield taken

    def append(self, block: bytes) -> None:
        """Add to the end; StorageError when there is no room."""
        with storage_errors(self.path):
            self._file.write(block)
            # a kill then costs no more than the block under way
            self._file.flush()
        if self._hashing:
            self._digest.update(block)
        self.size_bytes += len(block)
        self.most_bytes = max(self.most_bytes, self.size_bytes)

    def restart(self) -> None:
        """Throw away what is there."""
        with storage_errors(self.path):
            self._file.truncate(0)
            self._note.unlink(missing_ok=True)
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def sha256(self) -> str:
        """Of all that is there, once `hashed` has been through."""
        assert self._hashing
        return self._digest.hexdigest()

    def become_whole(self) -> None:
        """Give the file its final name, durably."""
        with storage_errors(self._target):
            os.fsync(self._file.fileno())
            self.path.replace(self._target)
            self._note.unlink(missing_ok=True)
            sync_directory(self._target.parent)

    def note_validator(self, url: str, validator: str) -> None:
        """Remember how the server tells this content from a later one."""
        if validator != self.validator(url):
            write_json(self._note, {"url": url, "validator": validator})

    def validator(self, url: str) -> str:
        """What was noted of the content at this URL; "" when nothing was."""
        try:
            noted = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return ""
        same = isinstance(noted, dict) and noted.get("url") == url
        return str(noted.get("validator", "")) if same else ""

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = True
        except OSError:
            # some cluster file systems know no locks; two downloads at once are rarer than using those
            held = False
        else:
            # the holder before us may have finished between our open and our lock
            held = not self.path.exists() or self.path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        if held:
            raise LockedError(
                f"another process is writing {self._target} now",
                remedy="wait until it is done, or stop it",
            )
