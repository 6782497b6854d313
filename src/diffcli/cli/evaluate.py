"""`diffcli eval`."""

from __future__ import annotations


def evaluate() -> None:
    """Placeholder while the rest is wired."""
