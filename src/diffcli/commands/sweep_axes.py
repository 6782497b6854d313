"""The axes of a sweep as they are typed, `steps=10,25 solver=ancestral,ddim`, and the points they span."""

from __future__ import annotations

import dataclasses
import itertools
import math
import typing
from collections.abc import Sequence

from diffcli.config.sections import SolverName
from diffcli.config.suggest import did_you_mean, either, nearest
from diffcli.errors import UsageError
from diffcli.records.sweeps import AxisName, SweepAxis, SweepSettings

_NAMES: tuple[AxisName, ...] = typing.get_args(AxisName)
_SOLVERS: tuple[str, ...] = typing.get_args(SolverName)
_WEIGHTS = ("first", "none")
_LARGEST_SEED = 2**63 - 1
_OPTION = "--sweep"


def parse_axes(texts: Sequence[str]) -> tuple[SweepAxis, ...]:
    """The axes of a command line, each value once; UsageError for what is no axis or cannot be its value."""
    axes = tuple(_parsed(text) for text in texts)
    for axis in axes:
        if [other.name for other in axes].count(axis.name) > 1:
            raise UsageError(
                f"the axis {axis.name} is given twice",
                where=_OPTION,
                remedy=f"list all its values in one: {axis.name}={','.join(axis.values)},...",
            )
    return axes


def spanned(axes: Sequence[SweepAxis]) -> tuple[SweepSettings, ...]:
    """All combinations, the last axis running fastest."""
    found = []
    for values in itertools.product(*(axis.values for axis in axes)):
        settings = SweepSettings()
        for axis, value in zip(axes, values, strict=True):
            settings = _with(settings, axis.name, value)
        found.append(settings)
    return tuple(dict.fromkeys(found))


def settings_text(settings: SweepSettings) -> str:
    """Where a point lies, as people read it."""
    values = ((field.name, getattr(settings, field.name)) for field in dataclasses.fields(settings))
    return ", ".join(f"{name} {_shown(value)}" for name, value in values if value is not None)


def _parsed(text: str) -> SweepAxis:
    typed, equals, listed = text.partition("=")
    name = _axis_name(typed.strip(), text)
    values = tuple(dict.fromkeys(value.strip() for value in listed.split(",")))
    if not equals or not all(values):
        raise UsageError(
            f"{text!r} names no values" if not listed.strip() else f"{text!r} has an empty value",
            where=_OPTION,
            remedy=f"write {name}=VALUE,VALUE,... without spaces",
        )
    for value in values:
        _with(SweepSettings(), name, value)
    return SweepAxis(name=name, values=values)


def _axis_name(typed: str, text: str) -> AxisName:
    for name in _NAMES:
        if name == typed:
            return name
    suggestion = did_you_mean(nearest(typed, _NAMES))
    raise UsageError(
        f"there is no axis {typed!r}" if "=" in text else f"{text!r} is no axis of a sweep",
        where=_OPTION,
        remedy=f"{suggestion} An axis is NAME=VALUE,VALUE,... of {', '.join(_NAMES)}".strip(),
    )


def _with(settings: SweepSettings, axis: AxisName, text: str) -> SweepSettings:
    """The settings with one of them set; UsageError for what cannot be its value."""
    match axis:
        case "steps":
            changed = dataclasses.replace(settings, steps=_whole_number(axis, text, least=1))
        case "solver":
            changed = dataclasses.replace(settings, solver=_solver(text))
        case "eta":
            changed = dataclasses.replace(settings, eta=_number(axis, text))
        case "seed":
            changed = dataclasses.replace(settings, seed=_whole_number(axis, text, least=0))
        case "ema":
            changed = dataclasses.replace(settings, ema=_weights(text))
        case "cfg":
            changed = dataclasses.replace(settings, cfg=_number(axis, text))
        case "guidance":
            changed = dataclasses.replace(settings, guidance=_number(axis, text))
    return changed


def _whole_number(axis: AxisName, text: str, *, least: int) -> int:
    if text.isdecimal() and least <= int(text) <= _LARGEST_SEED:
        return int(text)
    raise _no_value(axis, text, f"give whole numbers of at least {least}")


def _number(axis: AxisName, text: str) -> float:
    number = _float(text)
    if number is None or not 0 <= number < math.inf:
        raise _no_value(axis, text, "give numbers of at least 0")
    return number


def _solver(text: str) -> str:
    if text in _SOLVERS:
        return text
    raise _no_value(
        "solver", text, f"{did_you_mean(nearest(text, _SOLVERS))} Give {either(_SOLVERS)}".strip()
    )


def _weights(text: str) -> str:
    if text in _WEIGHTS or _float(text) is not None:
        return text
    suggestion = did_you_mean(nearest(text, _WEIGHTS))
    raise _no_value("ema", text, f"{suggestion} Give EMA rates, first, or none for the raw weights".strip())


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _shown(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _no_value(axis: AxisName, text: str, remedy: str) -> UsageError:
    return UsageError(f"{axis} cannot be {text!r}", where=_OPTION, remedy=remedy)
