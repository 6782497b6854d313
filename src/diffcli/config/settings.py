"""What one field of a section carries beside its type: its default, its help with the unit, and its range."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field
from typing import Any

# A check returns what is allowed ("at least 1") when the value is not, and None when it is.
Check = Callable[[Any], str | None]

_METADATA_KEY = "diffcli"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The help text of a field and the check of its values."""

    help: str
    check: Check


def setting(default: Any, help_text: str, check: Check = lambda _value: None) -> Any:
    """A dataclass field with its help and range check; the only place where a default is written."""
    return field(default=default, metadata={_METADATA_KEY: Setting(help=help_text, check=check)})


def setting_of(section_field: Field[Any]) -> Setting:
    """The Setting that `setting` attached to a field."""
    found = section_field.metadata[_METADATA_KEY]
    assert isinstance(found, Setting)
    return found


def default_of(section_field: Field[Any]) -> Any:
    """The default that `setting` gave a field."""
    assert section_field.default is not MISSING
    return section_field.default


def between(low: float, high: float) -> Check:
    """Finite numbers in [low, high]."""
    return lambda value: (
        None if _finite(value) and low <= value <= high else f"a number from {_shown(low)} to {_shown(high)}"
    )


def at_least(low: float) -> Check:
    """Finite numbers from low upwards."""
    return lambda value: None if _finite(value) and value >= low else f"a number of at least {_shown(low)}"


def above(low: float, *, at_most: float = math.inf) -> Check:
    """Finite numbers greater than low, and no greater than at_most."""
    end = "" if math.isinf(at_most) else f" and at most {_shown(at_most)}"
    return lambda value: (
        None if _finite(value) and low < value <= at_most else f"a number above {_shown(low)}{end}"
    )


def rate(value: float) -> str | None:
    """Shares in [0, 1)."""
    return None if _finite(value) and 0 <= value < 1 else "a number from 0 up to, but not, 1"


def each(check: Check, *, at_least_items: int = 0) -> Check:
    """Lists of at least that many items, every one of which passes `check`."""

    def check_list(values: tuple[Any, ...]) -> str | None:
        if len(values) < at_least_items:
            return f"a list of at least {at_least_items}"
        allowed = [problem for value in values if (problem := check(value)) is not None]
        return f"a list, each item {allowed[0]}" if allowed else None

    return check_list


def one_or_each(check: Check) -> Check:
    """One value that passes `check`, or a non-empty list of them."""
    check_list = each(check, at_least_items=1)
    return lambda value: check_list(value) if isinstance(value, tuple) else check(value)


def distinct(check: Check) -> Check:
    """Lists that pass `check` and hold no value twice."""
    return lambda values: (
        check(values) or (None if len(set(values)) == len(values) else "a list without repeats")
    )


def _finite(value: float) -> bool:
    # an int is finite, and one of more than 308 digits has no float to ask
    return isinstance(value, int) or math.isfinite(value)


def _shown(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"
