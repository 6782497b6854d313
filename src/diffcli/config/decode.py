"""From what TOML, JSON or a flag gave to typed settings: strict types, ranges, and every problem gathered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from diffcli.config.catalog import Catalog, SettingValue, run_sections
from diffcli.config.given import Given, Origin, Requested
from diffcli.config.problems import Problem, wrong_value
from diffcli.config.sections import RunConfig
from diffcli.config.suggest import did_you_mean, either, nearest
from diffcli.config.unknown import unknown_name, unknown_section

_INT64_END = 2**63


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """The settings that were given and are right, by dotted path, and what is wrong with the others."""

    values: Mapping[str, SettingValue]
    origins: Mapping[str, Origin]
    problems: tuple[Problem, ...]


class _MismatchError(Exception):
    """A value is not of its setting's type."""


def requested_in(document: Mapping[str, object], catalog: Catalog, origin: Origin) -> Requested:
    """What the tables of a document ask for; a table that is no section is a problem, told once."""
    sections = {path.partition(".")[0] for path in catalog}
    given: list[Given] = []
    problems: list[Problem] = []
    for name, table in document.items():
        if not isinstance(table, Mapping):
            given.append(Given(path=name, value=table, origin=origin))
        elif name in sections:
            given += [Given(path=f"{name}.{key}", value=value, origin=origin) for key, value in table.items()]
        else:
            problems.append(unknown_section(name, catalog, origin=str(origin)))
    return Requested(given=tuple(given), problems=tuple(problems))


def decode(sources: Iterable[Requested], catalog: Catalog) -> Decoded:
    """Check each value against its setting; the later source wins, and the problems of all are kept."""
    values: dict[str, SettingValue] = {}
    origins: dict[str, Origin] = {}
    problems: list[Problem] = []
    for source in sources:
        problems += source.problems
        for given in source.given:
            decoded = _decode_given(given, catalog)
            if isinstance(decoded, Problem):
                problems.append(decoded)
            else:
                values[given.path] = decoded
                origins[given.path] = given.origin
    return Decoded(values=values, origins=origins, problems=tuple(problems))


def build_config(values: Mapping[str, SettingValue]) -> RunConfig:
    """The configuration with these settings, and defaults for the rest; the values are trusted."""
    by_section: dict[str, dict[str, Any]] = {section: {} for section in run_sections()}
    for path, value in values.items():
        section, _, name = path.partition(".")
        by_section[section][name] = value
    return RunConfig(**{section: record(**by_section[section]) for section, record in run_sections().items()})


def _decode_given(given: Given, catalog: Catalog) -> SettingValue | Problem:
    origin = str(given.origin)
    if given.path not in catalog:
        return unknown_name(given.path, catalog, origin=origin)
    setting = catalog[given.path]
    try:
        value: SettingValue = _convert(setting.kind, given.value)
    except _MismatchError:
        hint = _hint(setting.kind, given.value)
        return wrong_value(given.path, given.value, _described(setting.kind), origin=origin, hint=hint)
    allowed = setting.check(value)
    if allowed is not None:
        return wrong_value(given.path, given.value, allowed, origin=origin)
    return value


def _convert(kind: Any, value: object) -> Any:
    """The value as `kind`, one of the types that fields of sections have; _MismatchError if it is not one."""
    if get_origin(kind) is Literal:
        if isinstance(value, str) and value in get_args(kind):
            return value
    elif get_origin(kind) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_convert(get_args(kind)[0], item) for item in value)
    elif _is_union(kind):
        for member in get_args(kind):
            with suppress(_MismatchError):
                return _convert(member, value)
    else:
        return _convert_plain(kind, value)
    raise _MismatchError


def _convert_plain(kind: type, value: Any) -> bool | int | float | str:
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and _is_int64(value):
        return value
    if kind is float and (_is_int64(value) or (isinstance(value, float) and math.isfinite(value))):
        return float(value)
    if kind is str and isinstance(value, str) and _is_unicode(value):
        return value
    raise _MismatchError


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _is_int64(value: Any) -> bool:
    # Python counts a bool among the ints
    return isinstance(value, int) and not isinstance(value, bool) and -_INT64_END <= value < _INT64_END


def _is_unicode(text: str) -> bool:
    # bytes of a command line that are no UTF-8 come as lone surrogates, which no file can hold
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _described(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return either(get_args(kind))
    if get_origin(kind) is tuple:
        return "a list of whole numbers" if get_args(kind)[0] is int else "a list of finite numbers"
    if _is_union(kind):
        return ", or ".join(_described(member) for member in get_args(kind))
    return {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}[kind]


def _hint(kind: Any, value: object) -> str:
    """What was probably meant or overlooked, when that can be told."""
    if isinstance(value, int) and not isinstance(value, bool) and not _is_int64(value):
        return "it does not fit in 64 bits"
    if get_origin(kind) is tuple and isinstance(value, int | float | str):
        return "a list is written [1, 2]"
    return did_you_mean(_meant(kind, value))


def _meant(kind: Any, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        words = ("true", "false") if kind is bool else get_args(kind) if get_origin(kind) is Literal else ()
        return nearest(value, words, count=1)
    if kind is int and isinstance(value, float) and value.is_integer() and _is_int64(int(value)):
        return (str(int(value)),)
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return (f'"{value}"',)
    return ()
