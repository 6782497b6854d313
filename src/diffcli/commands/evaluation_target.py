"""What is to be evaluated: a run, of which samples are drawn, or images that are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffcli.data.given_sources import archive_in
from diffcli.errors import MissingError
from diffcli.registry.create import Run, open_run
from diffcli.registry.paths import RunPaths

_SUFFIX = ".npz"


@dataclass(frozen=True, kw_only=True)
class EvaluationTarget:
    """A run, images, or an archive under a run; path: None when samples are still to be drawn."""

    run: Run | None
    path: Path | None


def find_target(text: str, runs_home: Path) -> EvaluationTarget:
    """What a user means by `RUN|ARCHIVE|DIR`; MissingError with what it could be."""
    path = Path(text)
    if path.is_dir() and RunPaths(path).record.is_file():
        return EvaluationTarget(run=open_run(runs_home, str(path.absolute())), path=None)
    if path.exists():
        return EvaluationTarget(run=_run_around(path, runs_home), path=path)
    if path.suffix == _SUFFIX or path.is_absolute():
        raise MissingError(f"there is no {text}", remedy="give a run, an archive, or a directory of images")
    return EvaluationTarget(run=open_run(runs_home, text), path=None)


def _run_around(path: Path, runs_home: Path) -> Run | None:
    """The run in whose samples/ an archive lies; None for any other images."""
    directory = (path if path.is_dir() else path.parent).absolute()
    if archive_in(directory) is None:
        return None
    run = RunPaths(directory.parent.parent)
    if directory.parent != run.samples or not run.record.is_file():
        return None
    return open_run(runs_home, str(run.directory))
