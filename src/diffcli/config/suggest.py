"""The names nearest to one that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], *, count: int = 3, least: float = 0.6) -> tuple[str, ...]:
    """At most `count` of the known names that are spelled much like `word`, whatever the case; best first.

    least: the likeness, from 0 to 1, that counts as much.
    """
    by_lower_case = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower_case, n=count, cutoff=least)
    return tuple(by_lower_case[name] for name in close)


def did_you_mean(names: Iterable[str]) -> str:
    """`did you mean a or b?`, or nothing to say when there is no name."""
    listed = either(tuple(names))
    return f"did you mean {listed}?" if listed else ""


def either(names: tuple[str, ...]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} or {names[-1]}"
