"""What is wrong with a configuration, gathered so that all of it is told at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from diffcli.config.toml import value_text
from diffcli.errors import UsageError

_LONGEST_VALUE = 60
_BARE_PATH = re.compile(r"[\w.-]+", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    `unsure` are the dotted paths whose wanted value is not known because of it, so that no rule judges them.
    """

    subject: str
    complaint: str
    origin: str = ""
    unsure: frozenset[str] = frozenset()

    @property
    def line(self) -> str:
        """One line: the setting and its value, what is allowed, and where the value comes from."""
        origin = f" ({self.origin})" if self.origin else ""
        return f"{self.subject}: {self.complaint}{origin}"


def wrong_value(path: str, value: object, allowed: str, *, origin: str = "", hint: str = "") -> Problem:
    """A value that its setting cannot take."""
    complaint = f"needs {allowed}; {hint}" if hint else f"needs {allowed}"
    return Problem(
        subject=f"{path} = {shortened(value)}", complaint=complaint, origin=origin, unsure=frozenset({path})
    )


def quoted_path(path: str) -> str:
    """A path as it was written, in quotes if TOML would need them."""
    return path if _BARE_PATH.fullmatch(path) else shortened(path)


def shortened(value: object) -> str:
    """A value as TOML text, cut when it would fill the screen."""
    return cut("a table" if isinstance(value, dict) else value_text(value))


def cut(text: str) -> str:
    """A text with its end left off when it would fill the screen."""
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def refuse(problems: Sequence[Problem], *, what: str = "the configuration", remedy: str = "") -> None:
    """Raise one UsageError that tells every problem; do nothing when there is none."""
    lines = list(dict.fromkeys(problem.line for problem in problems))
    if len(lines) == 1:
        raise UsageError(lines[0], remedy=remedy)
    if lines:
        raise UsageError(f"{len(lines)} problems in {what}", where="\n".join(lines), remedy=remedy)
