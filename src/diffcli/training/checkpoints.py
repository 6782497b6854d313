"""Checkpoints on disk: committed whole, verified on load, the newest good one wins.

A checkpoint is a directory `step-000500` of safetensors files, `state.json` with the counters, and
`manifest.json` with the size and SHA-256 of every other file. It is staged beside its place, then renamed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from diffcli import __version__, durable
from diffcli.errors import CorruptError, MissingError
from diffcli.models.tensor_file import load_tensors
from diffcli.training.retention import Retention

SCHEMA = 1
MANIFEST = "manifest.json"
STATE = "state.json"
_NAME = re.compile(r"step-(\d+)")
_STAGING_PREFIX = ".staging-"
_TRASH_PREFIX = ".removing-"
_SHOWN_NAMES = 3
# names and counters, and the status and metrics that are written meanwhile
_SPACE_FOR_THE_REST_BYTES = 4 * 2**20


@dataclass(frozen=True, kw_only=True)
class CheckpointContent:
    """What a checkpoint holds: groups of named tensors, one file each, and the counters as JSON."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    counters: Mapping[str, Any]

    @property
    def tensor_bytes(self) -> int:
        """The size of all tensors, which is about that of the files."""
        return sum(tensor.nbytes for group in self.tensors.values() for tensor in group.values())


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What the manifest says of one file."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class FoundCheckpoint:
    """The checkpoint to go on from, and why newer ones were passed over."""

    step: int
    directory: Path
    rejected: tuple[CorruptError, ...]


def directory_of(checkpoints: Path, step: int) -> Path:
    """The directory of the checkpoint after `step` optimizer steps."""
    return checkpoints / f"step-{step:06d}"


def save(checkpoints: Path, step: int, content: CheckpointContent) -> Path:
    """Write and commit a checkpoint; StorageError when the disk refuses, with all earlier ones untouched."""
    final = directory_of(checkpoints, step)
    staging = checkpoints / f"{_STAGING_PREFIX}{final.name}"
    with durable.storage_errors(final):
        checkpoints.mkdir(parents=True, exist_ok=True)
        durable.remove_tree(staging)
        durable.require_space(checkpoints, content.tensor_bytes + _SPACE_FOR_THE_REST_BYTES)
        staging.mkdir()
    try:
        with durable.storage_errors(staging):
            _write_files(staging, step, content)
        if final.exists():
            _set_aside(final)
        durable.commit_directory(staging, final)
    except BaseException:
        durable.remove_tree(staging)
        raise
    return final


def _write_files(staging: Path, step: int, content: CheckpointContent) -> None:
    for name, tensors in content.tensors.items():
        path = staging / f"{name}.safetensors"
        with durable.storage_errors(path):
            try:
                save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)
            except SafetensorError as error:
                # safetensors reports a full disk as an error of its own
                raise OSError(str(error)) from error
            # it makes its files private whatever the umask
            durable.give_usual_mode(path)
    state = {"schema": SCHEMA, "step": step, "counters": content.counters}
    (staging / STATE).write_text(json.dumps(state, indent=1, allow_nan=False))
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": durable.sha256(path)}
        for path in sorted(staging.iterdir())
    }
    manifest = {"schema": SCHEMA, "diffcli": __version__, "step": step, "files": files}
    (staging / MANIFEST).write_text(json.dumps(manifest, indent=1))


def steps_present(checkpoints: Path) -> tuple[int, ...]:
    """The steps of all committed checkpoints, oldest first, unverified."""
    if not checkpoints.is_dir():
        return ()
    matches = (_NAME.fullmatch(entry.name) for entry in checkpoints.iterdir())
    return tuple(sorted(int(match.group(1)) for match in matches if match))


def verify(directory: Path) -> None:
    """Compare a checkpoint with its manifest; CorruptError names the first file that differs."""
    listed = _read_manifest(directory / MANIFEST)
    present = {entry.name for entry in directory.iterdir()} - {MANIFEST}
    for name in sorted(set(listed) | present):
        reason = _difference(directory / name, listed.get(name), name in present)
        if reason:
            raise CorruptError(f"{directory / name}: {reason}", remedy="an older checkpoint may be good")


def _read_manifest(path: Path) -> dict[str, FileFacts]:
    manifest = _read_json(path)
    schema = manifest.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise CorruptError(
            f"{path} has checkpoint schema {schema}, newer than {SCHEMA}",
            remedy="use the version of diffcli that wrote it, or a later one",
        )
    try:
        return {
            name: FileFacts(size_bytes=facts["bytes"], sha256=facts["sha256"])
            for name, facts in manifest["files"].items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise CorruptError(f"{path} is not a manifest of this schema ({error!r})") from error


def _difference(path: Path, listed: FileFacts | None, present: bool) -> str | None:
    if listed is None:
        return "the manifest does not know this file"
    if not present:
        return "the file is missing"
    if path.stat().st_size != listed.size_bytes:
        return f"{path.stat().st_size} bytes, the manifest says {listed.size_bytes}"
    if durable.sha256(path) != listed.sha256:
        return "the content is not what was written (SHA-256 differs)"
    return None


def newest_good(checkpoints: Path) -> FoundCheckpoint:
    """The newest checkpoint that verifies.

    Raises MissingError when there is none at all, and CorruptError when there are some and none is good: a
    run never starts anew in silence.
    """
    rejected: list[CorruptError] = []
    for step in reversed(steps_present(checkpoints)):
        directory = directory_of(checkpoints, step)
        try:
            verify(directory)
        except CorruptError as error:
            rejected.append(error)
            continue
        return FoundCheckpoint(step=step, directory=directory, rejected=tuple(rejected))
    if rejected:
        raise CorruptError(
            f"none of the {len(rejected)} checkpoints in {checkpoints} is good",
            where=str(rejected[0].what),
            remedy="restore one from a backup; to train anew, start a new run",
        )
    raise MissingError(
        f"there is no checkpoint in {checkpoints}",
        remedy="the run was stopped before its first one; start a new run",
    )


def at_step(checkpoints: Path, step: int) -> FoundCheckpoint:
    """The checkpoint of exactly that step, verified; MissingError lists those there are."""
    directory = directory_of(checkpoints, step)
    if not directory.is_dir():
        present = ", ".join(str(other) for other in steps_present(checkpoints)) or "none"
        raise MissingError(f"there is no checkpoint of step {step}", where=f"present: {present}")
    verify(directory)
    return FoundCheckpoint(step=step, directory=directory, rejected=())


def read_tensors(directory: Path, name: str) -> dict[str, Tensor]:
    """One group of named tensors, on the CPU."""
    path = directory / f"{name}.safetensors"
    try:
        return load_tensors(path)
    except FileNotFoundError as error:
        present = ", ".join(sorted(entry.stem for entry in directory.glob("*.safetensors")))
        raise MissingError(f"{directory} holds no {name}", where=f"it holds: {present}") from error
    except SafetensorError as error:
        raise CorruptError(f"{path} is not a safetensors file: {error}") from error


def read_fitting(directory: Path, name: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One group of named tensors; CorruptError names the first not expected in name, shape or dtype."""
    found = read_tensors(directory, name)
    wrong = [f"{key} is missing" for key in expected if key not in found]
    wrong += [f"{key} is not known" for key in found if key not in expected]
    for key, tensor in expected.items():
        other = found.get(key)
        if other is not None and (other.shape != tensor.shape or other.dtype != tensor.dtype):
            wrong.append(
                f"{key} is {list(other.shape)} {other.dtype}, needed is {list(tensor.shape)} {tensor.dtype}"
            )
    if wrong:
        more = f" and {len(wrong) - _SHOWN_NAMES} more" if len(wrong) > _SHOWN_NAMES else ""
        raise CorruptError(
            f"{directory / name}.safetensors does not fit this network",
            where="; ".join(wrong[:_SHOWN_NAMES]) + more,
            remedy="was it written by another configuration?",
        )
    return found


def read_counters(directory: Path) -> Mapping[str, Any]:
    """The counters as they were saved; CorruptError when there are none."""
    counters = _read_json(directory / STATE).get("counters")
    if not isinstance(counters, dict):
        raise CorruptError(f"{directory / STATE} does not hold counters")
    return counters


def prune(checkpoints: Path, retention: Retention, *, up_to_step: int) -> None:
    """Delete the checkpoints that need not stay; interrupted, it leaves no half checkpoint.

    Those after `up_to_step` neither count nor go: they are damaged, and a resume has passed them over.
    """
    reached = [step for step in steps_present(checkpoints) if step <= up_to_step]
    for step in retention.superfluous(reached):
        _set_aside(directory_of(checkpoints, step))


def abandon_after(checkpoints: Path, step: int, place: Path) -> None:
    """Move all checkpoints after `step` to the directory `place`, newest first; they are not deleted."""
    for newer in reversed([other for other in steps_present(checkpoints) if other > step]):
        directory = directory_of(checkpoints, newer)
        with durable.storage_errors(directory):
            place.mkdir(parents=True, exist_ok=True)
            directory.rename(place / directory.name)
            durable.sync_directory(place)
            durable.sync_directory(checkpoints)


def clear_leftovers(checkpoints: Path) -> None:
    """Delete what an interrupted save or deletion left behind."""
    for leftover in _leftovers(checkpoints):
        durable.remove_tree(leftover)


def _leftovers(checkpoints: Path) -> Iterator[Path]:
    if checkpoints.is_dir():
        for entry in list(checkpoints.iterdir()):
            if entry.name.startswith((_STAGING_PREFIX, _TRASH_PREFIX)):
                yield entry


def _set_aside(directory: Path) -> None:
    """Take a checkpoint's name away at once, then delete it."""
    removing = directory.with_name(f"{_TRASH_PREFIX}{directory.name}-{os.getpid()}")
    with durable.storage_errors(directory):
        directory.rename(removing)
    durable.remove_tree(removing)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise CorruptError(f"{path} does not hold a JSON object")
    return value
