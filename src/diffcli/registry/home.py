"""The hidden corners of a runs directory."""

from __future__ import annotations

from pathlib import Path


def markers_of(home: Path) -> Path:
    """One empty directory for each id ever given; nothing in it is ever removed."""
    return home / ".ids"


def trash_of(home: Path) -> Path:
    """Runs that were removed and can be restored."""
    return home / ".trash"


def staging_of(home: Path) -> Path:
    """Runs that are being made and have no name yet."""
    return home / ".new"


def index_of(home: Path) -> Path:
    """Rows of runs at rest, kept for long lists; it may be deleted at any time."""
    return home / ".index"
