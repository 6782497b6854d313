"""What to say about a setting or a section that does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterable

from diffcli.config.catalog import Catalog
from diffcli.config.problems import Problem, quoted_path
from diffcli.config.suggest import did_you_mean, nearest


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
    name = path.rpartition(".")[2]
    elsewhere = tuple(known for known in catalog if known.partition(".")[2] == name)
    if elsewhere:
        return elsewhere
    if "." in path:
        return _near_in_section(path, catalog) or nearest(path, catalog) or _by_help(name, catalog)
    return tuple(
        known for near in nearest(name, _all_names(catalog)) for known in catalog if known.endswith(f".{near}")
    )


def _near_in_section(path: str, catalog: Catalog) -> tuple[str, ...]:
    section, _, name = path.partition(".")
    # compared without the section, which would make any two of its settings look alike
    return tuple(f"{section}.{near}" for near in nearest(name, _names_in(section, catalog)))


def _by_help(name: str, catalog: Catalog) -> tuple[str, ...]:
    words = set(re.findall(r"[a-z]+", name.lower()))
    return tuple(
        path
        for path, setting in catalog.items()
        if words and words <= set(re.findall(r"[a-z]+", setting.help.lower()))
    )[:3]


def _sections(catalog: Catalog) -> tuple[str, ...]:
    return tuple(dict.fromkeys(path.partition(".")[0] for path in catalog))


def _names_in(section: str, catalog: Catalog) -> tuple[str, ...]:
    return tuple(path.partition(".")[2] for path in catalog if path.startswith(f"{section}."))


def _all_names(catalog: Catalog) -> tuple[str, ...]:
    return tuple(dict.fromkeys(path.partition(".")[2] for path in catalog))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
