"""Which programs make a run."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from diffcli import __version__
from diffcli.registry.run_record import Versions


def installed_versions() -> Versions:
    """The installed versions, read without importing any of them."""
    return Versions(
        diffcli=__version__,
        python=platform.python_version(),
        torch=_version_of("torch"),
        accelerate=_version_of("accelerate"),
        numpy=_version_of("numpy"),
        safetensors=_version_of("safetensors"),
        platform=platform.platform(),
    )


def source_commit() -> str | None:
    """The git commit of diffcli's own sources, `-dirty` when they differ; None outside a repository."""
    package = Path(__file__).resolve().parent.parent
    if package.parent.name != "src":
        # an installed copy inside some other project's repository must not take that one's commit
        return None
    try:
        described = subprocess.run(
            ("git", "-C", str(package), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"),
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def _version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
