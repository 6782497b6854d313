"""From what a user calls a run to its directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffcli.config.suggest import did_you_mean, nearest
from diffcli.errors import CorruptError, MissingError, StorageError
from diffcli.registry.home import trash_of
from diffcli.registry.ids import number_of, run_id, run_numbers
from diffcli.registry.paths import RunPaths
from diffcli.registry.run_record import read_annotations, read_heading

LATEST = "latest"
_SHOWN = 5
_WEIGHTS_SUFFIXES = (".pt", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class _Named:
    id: str
    name: str


def resolve(home: Path, reference: str) -> RunPaths:
    """The run that an id, a name or its unique prefix, `latest`, or a path to its directory means.

    The run's files need not be readable. Raises MissingError, with suggestions, when nothing or more than one
    run is meant.
    """
    if os.sep in reference or reference in (os.curdir, os.pardir):
        return _by_path(Path(reference))
    if reference == LATEST:
        return _latest(home)
    if number_of(reference):
        if os.path.lexists(home / reference):
            return RunPaths(home / reference)
        raise _no_such_id(home, reference)
    return _by_name(home, reference)


def _by_path(directory: Path) -> RunPaths:
    run = RunPaths(Path(os.path.abspath(directory)))  # noqa: PTH100 - takes `..` away, keeps links
    if not run.record.is_file():
        raise MissingError(
            f"{directory} is not a run",
            where="it holds no run.json",
            remedy=_import_advice(str(directory)) or "see `diffcli runs ls`",
        )
    return run


def _latest(home: Path) -> RunPaths:
    for number in run_numbers(home):
        if (home / run_id(number)).is_dir():
            return RunPaths(home / run_id(number))
    raise MissingError(f"there are no runs in {home}", remedy="start one: diffcli train --preset digits")


def _by_name(home: Path, reference: str) -> RunPaths:
    named = list(_names(home))
    # a whole name is meant also where it begins a longer one
    found = [run for run in named if run.name == reference]
    found = found or [run for run in named if reference and run.name.startswith(reference)]
    if len(found) == 1:
        return RunPaths(home / found[0].id)
    if found:
        shown = ", ".join(f"{run.id} ({run.name})" for run in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise MissingError(
            f"{reference!r} may mean {len(found)} runs", where=shown + more, remedy="name one by its id"
        )
    known = [run.name for run in named if run.name] + [run.id for run in named]
    raise _missing(home, reference, known)


def _names(home: Path) -> Iterator[_Named]:
    """The names of all runs that can be read, newest first."""
    for number in run_numbers(home):
        run = RunPaths(home / run_id(number))
        try:
            name = read_annotations(run, read_heading(run)).name
        except (CorruptError, StorageError):
            name = ""
        yield _Named(id=run_id(number), name=name)


def _no_such_id(home: Path, reference: str) -> MissingError:
    if os.path.lexists(trash_of(home) / reference):
        return MissingError(
            f"{reference} is in the trash", remedy=f"bring it back: diffcli runs restore {reference}"
        )
    return _missing(home, reference, [run_id(number) for number in run_numbers(home)])


def _missing(home: Path, reference: str, known: list[str]) -> MissingError:
    near = nearest(reference, known) or nearest(f"run-{reference}", known, count=1)
    return MissingError(
        f"there is no run {reference!r} in {home}",
        remedy=_import_advice(reference) or did_you_mean(near) or "see `diffcli runs ls`",
    )


def _import_advice(reference: str) -> str:
    """What to do with a file of weights, which is no run yet."""
    is_weights = reference.endswith(_WEIGHTS_SUFFIXES) and Path(reference).is_file()
    return f"make a run of it first: diffcli runs import {reference}" if is_weights else ""
