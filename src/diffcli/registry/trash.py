"""Removal in two steps: into the trash, from where a run can be restored, and then for good."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from diffcli import durable
from diffcli.config.suggest import did_you_mean, nearest
from diffcli.errors import MissingError, UsageError
from diffcli.records.runs import Trash
from diffcli.registry.home import trash_of
from diffcli.registry.ids import entry_names, number_of, run_id, run_numbers
from diffcli.registry.lock import acquire_lock
from diffcli.registry.paths import RunPaths
from diffcli.registry.pins import require_unpinned
from diffcli.registry.size import size_on_disk
from diffcli.registry.state import require_idle

_PURGING_PREFIX = ".purging-"
_SHOWN = 10


def move_to_trash(home: Path, runs: Sequence[RunPaths]) -> None:
    """Move runs to the trash, all or none of them if one is in use or pinned.

    Raises LockedError that names pid@host, UsageError for a pinned run or one of another runs directory, and
    StorageError.
    """
    for run in runs:
        _require_inside(home, run)
        require_unpinned(run)
    trash = trash_of(home)
    with durable.storage_errors(trash):
        trash.mkdir(exist_ok=True)
    with contextlib.ExitStack() as locks:
        for run in runs:
            if run.directory.is_dir():
                require_idle(run)
                # held until the move, so that nobody starts training in between
                locks.enter_context(acquire_lock(run))
        for run in runs:
            _move(run.directory, trash / run.directory.name)


def restore(home: Path, reference: str) -> RunPaths:
    """Bring a run back by its id; MissingError when it is not there, UsageError when its place is taken."""
    source, target = trash_of(home) / reference, home / reference
    if not number_of(reference) or not os.path.lexists(source):
        known = [run_id(number) for number in run_numbers(trash_of(home))]
        raise MissingError(
            f"there is no {reference!r} in the trash",
            where=f"it holds: {', '.join(known[:_SHOWN]) or 'nothing'}",
            remedy=did_you_mean(nearest(reference, known)),
        )
    if os.path.lexists(target):
        raise UsageError(f"there is a {target} already", remedy="move it away first")
    _move(source, target)
    return RunPaths(target)


def trash_contents(home: Path) -> Trash:
    """What is in the trash."""
    trash = trash_of(home)
    return Trash(
        home=home,
        ids=tuple(run_id(number) for number in run_numbers(trash)),
        size_bytes=size_on_disk(trash) if trash.is_dir() else 0,
    )


def purge(home: Path) -> Trash:
    """Delete all runs in the trash for good; an interrupted deletion is finished by the next one."""
    contents = trash_contents(home)
    trash = trash_of(home)
    for name in contents.ids:
        # renamed first, so that nobody restores half a run
        _move(trash / name, trash / f"{_PURGING_PREFIX}{name}")
    for name in entry_names(trash):
        if name.startswith(_PURGING_PREFIX):
            _delete(trash / name)
    return contents


def _require_inside(home: Path, run: RunPaths) -> None:
    if run.directory.parent.resolve() != home.resolve() or not number_of(run.directory.name):
        raise UsageError(
            f"{run.directory} is no run of {home}",
            remedy=f"name its runs directory: --runs {run.directory.parent}",
        )


def _move(source: Path, target: Path) -> None:
    with durable.storage_errors(source):
        source.rename(target)
        durable.sync_directory(target.parent)
        durable.sync_directory(source.parent)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        durable.remove_tree(path)
        return
    with durable.storage_errors(path):
        path.unlink(missing_ok=True)
