"""The two streams: stdout carries results, stderr everything else."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from diffcli.errors import DiffcliError, InterruptedRunError, StorageError

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
    _write_result(_visible(text).encode(encoding, "backslashreplace").decode(encoding))


def print_json(value: Any) -> None:
    """One JSON object as the whole result."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, ensure_ascii=True)
    _write_result(text)


def print_notice(text: str) -> None:
    """A remark beside the result; no work stops because nobody can read it."""
    _write_remark(_visible(text))


def print_next(*commands: str) -> None:
    """What to type next."""
    for position, command in enumerate(commands):
        print_notice(f"{'next: ' if position == 0 else '      '}{command}")


def _error_label() -> str:
    if is_interactive(sys.stderr) and "NO_COLOR" not in os.environ:
        return "\033[1;31merror:\033[0m"
    return "error:"


def print_error(error: DiffcliError, *, rank: int) -> None:
    """An error as what, where and what to do; ranks above 0, which share the screen, say one line at most."""
    asked_for = isinstance(error, InterruptedRunError)
    if rank > 0:
        if not (asked_for or error.told_by_first):
            # the first of the things that are listed, such as a bad image
            place = error.where.partition("\n")[0]
            said = "; ".join(part for part in (error.what, place, error.remedy) if part)
            print_notice(f"rank {rank}: {' '.join(said.split())}")
        return
    lines = [error.what]
    lines += [f"  {line}" for part in (error.where, error.remedy) if part for line in part.splitlines()]
    message = _visible("\n".join(lines))
    _write_remark(message if asked_for else f"{_error_label()} {message}")


def _visible(text: str) -> str:
    """Text without what moves a cursor or changes colours, as the names of files may."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1] for letter in text
    )


def _write_result(text: str) -> None:
    try:
        print(text, file=sys.stdout, flush=True)
    except BrokenPipeError:
        raise ReaderLeftError from None
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise StorageError(f"cannot write the result: {reason}", where="stdout") from error


def _write_remark(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
