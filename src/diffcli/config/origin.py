"""Where the value of a setting comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    """A value that someone asked for, as it was written: a dotted path that may not exist, a value of any type."""

    path: str
    value: object
    origin: Origin
