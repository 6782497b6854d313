"""Checkpoints that somebody has changed, with manifests to match."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffcli import durable


def change_manifest(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Let a function change what the manifest of a checkpoint says."""
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def agree(directory: Path) -> None:
    """Let the manifest say what the files are, as one would who makes a checkpoint to do harm."""
    files = [path for path in directory.iterdir() if path.name != "manifest.json"]
    facts = {
        path.name: {"bytes": path.stat().st_size, "sha256": durable.sha256(path)} for path in sorted(files)
    }
    change_manifest(directory, lambda manifest: manifest.update(files=facts))
