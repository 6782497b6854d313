"""What `runs repair` found and did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# left: harmless, or not ours to touch
FindingOutcome = Literal["mended", "left", "beyond repair"]
RepairOutcome = Literal["in order", "mended", "in use", "beyond repair"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that was not in order, and what became of it (after a dry run: what would)."""

    what: str
    action: str
    outcome: FindingOutcome


@dataclass(frozen=True, kw_only=True)
class RepairedRun:
    """A run after its repair; `next_command` goes on with it, None when there is nothing to go on with."""

    id: str
    outcome: RepairOutcome
    findings: tuple[Finding, ...]
    next_command: str | None


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """All runs that were looked at, and what was found in the runs directory itself."""

    home: Path
    dry_run: bool
    runs: tuple[RepairedRun, ...]
    home_findings: tuple[Finding, ...]
