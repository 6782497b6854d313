"""What `runs prune` deletes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PrunedKind = Literal["checkpoint", "EMA snapshot", "abandoned checkpoint", "abandoned EMA snapshot"]


@dataclass(frozen=True, kw_only=True)
class Superfluous:
    """A directory that can go, of a run, by the step it is of."""

    run_id: str
    kind: PrunedKind
    step: int
    directory: Path
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What can go, or is gone."""

    superfluous: tuple[Superfluous, ...]

    @property
    def size_bytes(self) -> int:
        """The bytes of all of it."""
        return sum(entry.size_bytes for entry in self.superfluous)
