"""`--set training.lr=2e-4`: settings from the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from diffcli.config.catalog import Catalog
from diffcli.config.given import FROM_SET, Given, Requested
from diffcli.config.problems import Problem, cut, shortened
from diffcli.config.toml import parse_value
from diffcli.config.unknown import unknown_name

# what may stand without quotes: no space, no comma, nothing that opens or closes a TOML value
_BARE_WORD = re.compile(r"""[^\s,\[\]{}"']+""")


def parse_overrides(texts: Sequence[str], catalog: Catalog) -> Requested:
    """The settings of all `--set` options; one that is set twice is a problem, whatever its values."""
    given: dict[str, Given] = {}
    problems: list[Problem] = []
    for text in texts:
        parsed = _parse_override(text, catalog)
        if isinstance(parsed, Problem):
            problems.append(parsed)
        elif parsed.path in given:
            problems.append(_set_twice(given[parsed.path], parsed))
        else:
            given[parsed.path] = parsed
    return Requested(given=tuple(given.values()), problems=tuple(problems))


def _parse_override(text: str, catalog: Catalog) -> Given | Problem:
    path, equals, value = (part.strip() for part in text.partition("="))
    if path and path not in catalog:
        return unknown_name(path, catalog, origin=str(FROM_SET))
    if not (path and equals and value):
        example = f"{path or 'training.lr'}=VALUE"
        return Problem(
            subject=f"--set {_as_typed(text)}", complaint=f"needs {example}", unsure=frozenset({path})
        )
    try:
        return Given(path=path, value=parse_value(value), origin=FROM_SET)
    except ValueError as error:
        if _BARE_WORD.fullmatch(value):
            return Given(path=path, value=value, origin=FROM_SET)
        return _unreadable(path, value, str(error))


def _unreadable(path: str, value: str, reason: str) -> Problem:
    if "," in value and not value.startswith("["):
        reason = f"a list is written [{cut(value)}]"
    elif value.isprintable() and value[0] not in "[{\"'":
        reason = f"text with spaces is written '\"{cut(value)}\"'"
    return Problem(
        subject=f"{path} = {_as_typed(value)}",
        complaint=f"is not TOML: {reason}",
        origin=str(FROM_SET),
        unsure=frozenset({path}),
    )


def _as_typed(text: str) -> str:
    return cut(text) if text.isprintable() else shortened(text)


def _set_twice(first: Given, second: Given) -> Problem:
    return Problem(
        subject=second.path,
        complaint=f"set twice, to {shortened(first.value)} and to {shortened(second.value)}",
        origin=str(FROM_SET),
        unsure=frozenset({second.path}),
    )
