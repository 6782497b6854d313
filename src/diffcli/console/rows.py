"""Tab-separated rows for pipes, and text that is safe to print."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from diffcli.console.terminal import is_interactive, print_result


def stdout_is_watched() -> bool:
    """Whether a person sees the result on a terminal; it may also be closed."""
    return sys.stdout is not None and is_interactive(sys.stdout)


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Rows with a tab between their cells, none of them cut."""
    print_result("\n".join("\t".join(printable(cell) for cell in row) for row in rows))


def printable(text: str) -> str:
    """Text without anything that moves a cursor, breaks a row, or that stdout cannot encode."""
    if text.isascii() and text.isprintable():
        return text
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)
