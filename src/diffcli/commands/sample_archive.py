"""The directory of an archive: whose place it has, and how it is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from diffcli import durable
from diffcli.commands.conditions import SampleConditions
from diffcli.errors import UsageError
from diffcli.images.grid import grid, write_png
from diffcli.records.samples import SAMPLE_RECORD_FILE, SampleProvenance
from diffcli.registry.sample_records import fingerprint, write_sample_record
from diffcli.sampling.archive import ArchiveParts, ArchivePlan, Images, write_archive

GRID = "grid.png"
_GRID_IMAGES = 100
_GRID_COLUMNS = 10
_GRID_LEAST_PIXELS = 32


def stands_already(directory: Path, provenance: SampleProvenance, *, force: bool) -> bool:
    """Whether exactly this archive is there.

    Raises UsageError when its place is taken: by another archive, which force lets go, or by anything else,
    which it does not.
    """
    if directory == Path.cwd() or not directory.name:
        raise UsageError(f"{directory} cannot become an archive", remedy="name a directory in it: --out NAME")
    if not directory.exists():
        return False
    found = _fingerprint_in(directory)
    if found is None and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(
            f"{directory} is there already, and is no sample archive",
            remedy="give another --name or --out; nothing but an archive is ever replaced",
        )
    if force or found is None:
        return False
    if found == fingerprint(provenance):
        return True
    raise UsageError(
        f"{directory} is there already, and was made otherwise",
        remedy="give another --name or --out, or replace it with --force",
    )


def no_more_files(_making: Path) -> None:
    """Add nothing to the three files of every archive."""


def write_directory(
    directory: Path,
    parts: ArchiveParts,
    conditions: SampleConditions,
    provenance: SampleProvenance,
    *,
    add_files: Callable[[Path], None] = no_more_files,
) -> None:
    """Write archive, grid and record beside their place, then put them there instead of what it holds.

    add_files: writes what else there is to be into the directory that it is given.
    """
    plan = parts.plan
    making = directory.with_name(f".{directory.name}.making")
    durable.remove_tree(making)
    with durable.storage_errors(directory):
        making.mkdir(parents=True)
    shown: list[Images] = []
    write_archive(
        making / plan.file_name,
        plan,
        _keeping_first(parts.read(), shown, _grid_count(plan, conditions)),
        conditions.kept_labels,
    )
    write_png(making / GRID, _grid(np.concatenate(shown), plan, conditions))
    write_sample_record(making / SAMPLE_RECORD_FILE, provenance)
    add_files(making)
    durable.remove_tree(directory)
    durable.commit_directory(making, directory)


def _fingerprint_in(directory: Path) -> str | None:
    """The fingerprint of the archive in a directory, empty if it cannot be read; None for no archive."""
    try:
        record = json.loads((directory / SAMPLE_RECORD_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        return ""
    return str(record.get("fingerprint", "")) if isinstance(record, dict) else ""


def _grid_count(plan: ArchivePlan, conditions: SampleConditions) -> int:
    listed = conditions.classes_per_round
    return min(plan.count, listed * _GRID_COLUMNS if listed else _GRID_IMAGES)


def _grid(images: Images, plan: ArchivePlan, conditions: SampleConditions) -> Images:
    """One row for each listed class, in the order of the list; without a list, ten columns."""
    magnify = max(1, _GRID_LEAST_PIXELS // plan.height)
    listed = conditions.classes_per_round
    if not listed or len(images) < listed:
        return grid(images, columns=_GRID_COLUMNS, magnify=magnify)
    columns = len(images) // listed
    by_class = images[: columns * listed].reshape(columns, listed, *images.shape[1:])
    rows = by_class.swapaxes(0, 1).reshape(-1, *images.shape[1:])
    return grid(rows, columns=columns, magnify=magnify)


def _keeping_first(batches: Iterator[Images], kept: list[Images], count: int) -> Iterator[Images]:
    """Pass batches on, and keep the first `count` images."""
    missing = count
    for images in batches:
        if missing > 0:
            kept.append(images[:missing])
            missing -= len(kept[-1])
        yield images
