"""A file as it was published."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """Where it lies, its name on the disk, and what tells it from any other.

    otherwise: how to come by it when this way fails, for error messages.
    """

    url: str
    name: str
    size_bytes: int
    sha256: str
    otherwise: str
