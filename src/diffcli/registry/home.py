"""The runs directory and its hidden corners."""

from __future__ import annotations

import os
from pathlib import Path

HOME_VARIABLE = "DIFFCLI_RUNS"


def runs_home(flag: Path | None = None) -> Path:
    """The runs directory: the flag, else DIFFCLI_RUNS, else ./runs; it need not exist."""
    return flag or Path(os.environ.get(HOME_VARIABLE) or "runs")


def markers_of(home: Path) -> Path:
    """One empty directory for each id ever given; nothing in it is ever removed."""
    return home / ".ids"


def trash_of(home: Path) -> Path:
    """Runs that were removed and can be restored."""
    return home / ".trash"


def staging_of(home: Path) -> Path:
    """Runs that are being made and have no name yet."""
    return home / ".new"
