"""Whether a checkpoint is what its manifest says, and when that cannot be told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffcli.errors import CorruptError
from diffcli.registry.contents import StepDirectory
from diffcli.training import checkpoints

# unknown: written by a newer diffcli, or not readable for us
Soundness = Literal["good", "damaged", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the verification of a checkpoint, or of an EMA snapshot, came to; `reason` unless it is good."""

    step: int
    directory: Path
    soundness: Soundness
    reason: str


def verdict_on(entry: StepDirectory) -> Verdict:
    """Read all of a checkpoint and compare it with its manifest."""
    try:
        checkpoints.verify(entry.directory)
    except CorruptError as error:
        unknown = _is_newer(entry.directory) or _is_withheld(error.__cause__)
        return _verdict(entry, "unknown" if unknown else "damaged", error.what)
    except OSError as error:
        return _verdict(entry, "unknown", str(error))
    return _verdict(entry, "good", "")


def _verdict(entry: StepDirectory, soundness: Soundness, reason: str) -> Verdict:
    return Verdict(step=entry.step, directory=entry.directory, soundness=soundness, reason=reason)


def _is_newer(directory: Path) -> bool:
    try:
        manifest = json.loads((directory / checkpoints.MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    return isinstance(schema, int) and schema > checkpoints.SCHEMA


def _is_withheld(cause: BaseException | None) -> bool:
    """Whether a file is there and the system does not give it out."""
    return isinstance(cause, OSError) and not isinstance(cause, (FileNotFoundError, NotADirectoryError))
