"""What to say about a setting or a section that does not exist."""

from __future__ import annotations

import re
from collections.abc import Sequence

from diffcli.config.catalog import Catalog
from diffcli.config.problems import Problem, quoted_path
from diffcli.config.suggest import did_you_mean, nearest

# likeness, of 1, of two names of which one is a slip of the other
_ONE_SLIP = 0.85
_MOST_LISTED = 16


def unknown_name(path: str, catalog: Catalog, *, origin: str = "") -> Problem:
    """The problem of a path that names no setting, with the ones that may have been meant."""
    section, _, name = path.partition(".")
    sections = _sections(catalog)
    meant = _meant(path, catalog)
    if not name and section in sections:
        complaint = f"is a section, not a setting; it holds {_listed(_names_in(section, catalog))}"
    elif meant:
        complaint = f"no such setting; {did_you_mean(meant)}"
    elif section in sections:
        complaint = f"no such setting; {section} holds {_listed(_names_in(section, catalog))}"
    else:
        complaint = f"no such section; there are {_listed(sections)}"
    return Problem(subject=quoted_path(path), complaint=complaint, origin=origin, unsure=frozenset(meant))


def unknown_section(section: str, catalog: Catalog, *, origin: str = "") -> Problem:
    """The problem of a table that is no section, with the ones that may have been meant."""
    sections = _sections(catalog)
    meant = nearest(section, sections)
    complaint = did_you_mean(meant) if meant else f"there are {_listed(sections)}"
    # any setting may have been meant to stand there
    return Problem(
        subject=quoted_path(section),
        complaint=f"no such section; {complaint}",
        origin=origin,
        unsure=frozenset(catalog),
    )


def _meant(path: str, catalog: Catalog) -> tuple[str, ...]:
    section, dot, name = path.rpartition(".")
    same_name = tuple(known for known in catalog if known.partition(".")[2] == name)
    if same_name:
        return same_name
    if not dot:
        return tuple(
            known
            for near in nearest(name, dict.fromkeys(known.partition(".")[2] for known in catalog))
            for known in catalog
            if known.endswith(f".{near}")
        )
    for near_section in nearest(section, _sections(catalog), count=1):
        return _meant_in(near_section, name, catalog)
    return ()


def _meant_in(section: str, name: str, catalog: Catalog) -> tuple[str, ...]:
    # compared without the section, which would make any two of its settings look alike
    names = _names_in(section, catalog)
    meant = (
        nearest(name, names, least=_ONE_SLIP)
        or _with_help_about(name, section, catalog)
        or nearest(name, names)
        or tuple(known for known in names if _words(known) <= _words(name))
    )
    return tuple(f"{section}.{near}" for near in meant)


def _with_help_about(name: str, section: str, catalog: Catalog) -> tuple[str, ...]:
    """Names of the section whose help has every word of a name of several words, such as learning_rate."""
    words = _words(name)
    if len(words) < 2:
        return ()
    names = _names_in(section, catalog)
    return tuple(known for known in names if words <= _words(catalog[f"{section}.{known}"].help))


def _words(text: str) -> set[str]:
    return {word.removesuffix("s") for word in re.findall("[a-z]+", text.lower())}


def _sections(catalog: Catalog) -> tuple[str, ...]:
    return tuple(dict.fromkeys(path.partition(".")[0] for path in catalog))


def _names_in(section: str, catalog: Catalog) -> tuple[str, ...]:
    return tuple(path.partition(".")[2] for path in catalog if path.startswith(f"{section}."))


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(names[:_MOST_LISTED])
    more = len(names) - _MOST_LISTED
    return f"{listed} and {more} more, which train --dry-run shows" if more > 0 else listed
