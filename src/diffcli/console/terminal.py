"""The two streams: stdout carries results, stderr everything else."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from diffcli.errors import DiffcliError, StorageError

if TYPE_CHECKING:
    from rich.console import Console

_PLAIN_TERMINALS = ("dumb", "unknown")


class ReaderLeftError(Exception):
    """Whoever read stdout has closed it; no OSError, since Typer makes a failure of that one."""


def is_interactive(stream: TextIO) -> bool:
    """Whether a person watches a stream on a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "") not in _PLAIN_TERMINALS


def rich_console(stream: TextIO) -> Console:
    """A Rich console on a stream; NO_COLOR and the terminal's width are Rich's own business."""
    from rich.console import Console

    return Console(file=stream, highlight=False, soft_wrap=not is_interactive(stream))


def print_result(text: str) -> None:
    """One line of a result; ReaderLeftError when nobody reads it, StorageError when it cannot be written."""
    encoding = sys.stdout.encoding
    shown = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(shown, file=sys.stdout, flush=True)
    except BrokenPipeError:
        raise ReaderLeftError from None
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise StorageError(f"cannot write the result: {reason}", where="stdout") from error


def print_json(value: Any) -> None:
    """One JSON object as the whole result."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, ensure_ascii=True)
    print_result(text)


def print_notice(text: str) -> None:
    """A remark beside the result; no work stops because nobody can read it."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def print_next(*commands: str) -> None:
    """What to type next."""
    for position, command in enumerate(commands):
        print_notice(f"{'next: ' if position == 0 else '      '}{command}")


def print_error(error: DiffcliError, *, rank: int) -> None:
    """An error as what, where and what to do; ranks above 0, which share the screen, say one line."""
    if rank > 0:
        print_notice(f"rank {rank}: {error.what}")
        return
    label = "error:"
    if is_interactive(sys.stderr) and "NO_COLOR" not in os.environ:
        label = f"\033[1;31m{label}\033[0m"
    lines = [f"{label} {error.what}"]
    lines += [f"  {line}" for part in (error.where, error.remedy) if part for line in part.splitlines()]
    print_notice("\n".join(lines))
