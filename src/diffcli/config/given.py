"""The values that someone asked for, before they are checked, and where each comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffcli.config.problems import Problem

OriginKind = Literal["default", "preset", "run", "set", "flag"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One source of values; `name` is the preset, the run or the flag, and empty for the others."""

    kind: OriginKind
    name: str = ""

    def __str__(self) -> str:
        match self.kind:
            case "default":
                return "default"
            case "set":
                return "--set"
            case "flag":
                return self.name
            case "preset" | "run":
                return f"{self.kind} {self.name}".rstrip()


DEFAULT = Origin(kind="default")
FROM_SET = Origin(kind="set")


@dataclass(frozen=True, kw_only=True)
class Given:
    """A value that someone asked for, as it was written: any path, any value."""

    path: str
    value: object
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Requested:
    """All that one source asked for, and what of it could not even be read as a setting and its value."""

    given: tuple[Given, ...] = ()
    problems: tuple[Problem, ...] = ()
