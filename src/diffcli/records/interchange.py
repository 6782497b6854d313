"""What was imported from other programs, and what was exported for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ExportFormat = Literal["openai", "safetensors", "diffusers"]


@dataclass(frozen=True, kw_only=True)
class ImportedRun:
    """A run that was made of files of another program.

    how: by what its preset was known; weights: what can be sampled, such as `ema-0.9999` or `model`;
    resumable: it can be trained on as it is; notices: warnings and notes, for the user to read.
    """

    run_id: str
    directory: Path
    preset: str
    kind: str
    how: str
    step: int
    total_steps: int
    weights: tuple[str, ...]
    optimizer: bool
    resumable: bool
    files: tuple[Path, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """One file for another program."""

    path: Path
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class ExportedRun:
    """Files that were made of a run's checkpoint; notices: what their user has to know."""

    run_id: str
    step: int
    format: ExportFormat
    directory: Path
    files: tuple[ExportedFile, ...]
    notices: tuple[str, ...]
