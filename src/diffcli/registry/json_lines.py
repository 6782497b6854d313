"""Files of one JSON object a line, only ever appended to; a kill in the middle of a line does no harm."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffcli import durable
from diffcli.registry.json_records import read_error

_NEWLINE = b"\n"
_TAIL_BYTES = 8192


def append_line(path: Path, value: Any) -> None:
    """Append one value as one line in one write; StorageError when it does not fit."""
    line = json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii") + _NEWLINE
    with durable.storage_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if _ends_torn(descriptor):
                line = _NEWLINE + line
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)


def read_lines(path: Path) -> Iterator[Any | None]:
    """The value of each line, None for a torn or broken one; nothing when there is no such file."""
    try:
        with path.open("rb") as file:
            for line in file:
                yield _value_of(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise read_error(error, path) from error


def last_lines(path: Path) -> Iterator[Any]:
    """The values of the last whole lines, last first, reading only the end of the file."""
    tail = b""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            tail = os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        finally:
            os.close(descriptor)
    for line in reversed(tail.split(_NEWLINE)):
        value = _value_of(line) if line else None
        if value is not None:
            yield value


def _ends_torn(descriptor: int) -> bool:
    size = os.lseek(descriptor, 0, os.SEEK_END)
    return size > 0 and os.pread(descriptor, 1, size - 1) != _NEWLINE


def _value_of(line: bytes) -> Any | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
