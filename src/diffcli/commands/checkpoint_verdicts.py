"""Whether a checkpoint is what its manifest says, and when that cannot be told."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffcli import durable
from diffcli.errors import CorruptError
from diffcli.registry.contents import DAMAGED_PREFIX, StepDirectory
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
        return _verdict(entry, "damaged" if is_damage(entry.directory, error) else "unknown", error.what)
    except OSError as error:
        return _verdict(entry, "unknown", str(error))
    return _verdict(entry, "good", "")


def is_damage(directory: Path, error: CorruptError) -> bool:
    """Whether a checkpoint that was refused is damaged, and not a newer diffcli's or kept from us."""
    return not (_is_newer(directory) or _is_withheld(error.__cause__))


def damaged_name(path: Path) -> Path:
    """The first name for it, as something damaged, that is free."""
    target = path.with_name(f"{DAMAGED_PREFIX}{path.name}")
    number = 1
    while os.path.lexists(target):
        number += 1
        target = path.with_name(f"{DAMAGED_PREFIX}{path.name}-{number}")
    return target


def put_aside(path: Path, target: Path) -> None:
    """Give something damaged another name beside its own; StorageError when that fails."""
    with durable.storage_errors(path):
        path.rename(target)
        durable.sync_directory(path.parent)


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
