"""Every setting there is, by its dotted path, read off the sections."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, get_type_hints

from diffcli.config.sections import RunConfig
from diffcli.config.settings import Check, default_of, setting_of

SettingValue = bool | int | float | str | tuple[int, ...] | tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class KnownSetting:
    """One field of a section: its type, default, help and range check."""

    path: str
    kind: Any
    default: SettingValue
    help: str
    check: Check


Catalog = Mapping[str, KnownSetting]


def section_settings(section: str, record: type) -> dict[str, KnownSetting]:
    """The settings of a section's dataclass, by dotted path, in the order of its fields."""
    kinds = get_type_hints(record)
    return {
        f"{section}.{field.name}": KnownSetting(
            path=f"{section}.{field.name}",
            kind=kinds[field.name],
            default=default_of(field),
            help=setting_of(field).help,
            check=setting_of(field).check,
        )
        for field in dataclasses.fields(record)
    }


@cache
def run_sections() -> Mapping[str, type]:
    """The dataclass of each section of a run's configuration."""
    return MappingProxyType(get_type_hints(RunConfig))


@cache
def run_settings() -> Catalog:
    """All settings of a run's configuration, by dotted path."""
    settings: dict[str, KnownSetting] = {}
    for section, record in run_sections().items():
        settings |= section_settings(section, record)
    return MappingProxyType(settings)
