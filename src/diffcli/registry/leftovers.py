"""What killed writers leave in a run: staged directories, half deletions, temporary files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from diffcli.registry.contents import abandoned_places
from diffcli.registry.ids import entry_names
from diffcli.registry.paths import RunPaths

_TEMPORARY_SUFFIX = ".tmp"
_MAKING_SUFFIX = ".making"
# who writes samples, evaluations and annotations has no lock, and changes something more often than this
_QUIET_SECONDS = 3600.0


def leftovers_of(run: RunPaths) -> tuple[Path, ...]:
    """What can be deleted, by path; only the holder of the run's lock may ask.

    Unfinished sample archives (`.NAME.parts`) are none: the same request goes on from them.
    """
    return (*sorted(_of_the_trainer(run)), *sorted(path for path in _of_others(run) if _is_quiet(path)))


def _of_the_trainer(run: RunPaths) -> Iterator[Path]:
    """What only the holder of the lock writes, and so nobody is writing now."""
    abandoned = (
        place / part.name for place in abandoned_places(run) for part in (run.checkpoints, run.ema_snapshots)
    )
    for directory in (run.checkpoints, run.ema_snapshots, run.previews, run.attempts, *abandoned):
        for name in _names_in(directory):
            if name.startswith("."):
                yield directory / name
    for path in (run.record, run.status):
        yield from _temporaries_of(path)


def _of_others(run: RunPaths) -> Iterator[Path]:
    yield from _temporaries_of(run.annotations)
    for name in _names_in(run.evaluations):
        if name.startswith(".") and name.endswith(_TEMPORARY_SUFFIX):
            yield run.evaluations / name
    for directory in (run.samples, run.exports):
        for name in _names_in(directory):
            if name.startswith(".") and name.endswith(_MAKING_SUFFIX):
                yield directory / name


def _temporaries_of(path: Path) -> Iterator[Path]:
    for name in _names_in(path.parent):
        if name.startswith(f".{path.name}.") and name.endswith(_TEMPORARY_SUFFIX):
            yield path.parent / name


def _names_in(directory: Path) -> list[str]:
    """The names in a directory; none when something else has its place."""
    return entry_names(directory) if directory.is_dir() else []


def _is_quiet(path: Path) -> bool:
    """Whether nothing in it changed for long."""
    newest = max(_changed_at(inner) for inner in (path, *path.rglob("*")))
    return time.time() - newest > _QUIET_SECONDS


def _changed_at(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        # it is gone just now, so somebody is at work
        return time.time()
