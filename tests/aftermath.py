"""What must hold after any fault: a clear end, good checkpoints, a list of runs, nothing half-made."""

from __future__ import annotations

import contextlib
import io
import json
import time
from pathlib import Path
from typing import Any

from diffcli.cli.app import run_app
from diffcli.cli.handler import run as run_in_this_process
from diffcli.training import checkpoints
from runs_in_processes import Bench, Started, leftovers

USAGE, MISSING, LOCKED, CORRUPT, STORAGE, DIVERGED = 2, 3, 4, 5, 6, 7
MOST_LINES = 8
# advice that would be bad for the user's health
_BAD_ADVICE = ("allow_pickle", "weights_only", "unsafe")


def assert_ended(process: Started, status: int, *phrases: str) -> None:
    """The process ends with this status, and its message is short and holds these phrases."""
    assert process.exit_code() == status, process.errors
    said = process.errors
    assert "Traceback" not in said
    assert "this is a bug" not in said
    assert not [advice for advice in _BAD_ADVICE if advice in said]
    for phrase in phrases:
        assert phrase in said, said
    if 0 < status < 128:
        assert said.count("error: ") == 1, said
        assert len(said[said.index("error: ") :].splitlines()) <= MOST_LINES, said
        assert process.output == ""


def assert_sound(bench: Bench, *, without_good_checkpoint: tuple[str, ...] = ()) -> None:
    """Runs are listed, each with checkpoints has a good one that loads, and nothing half-made is there.

    To be called after the next start, which may have to clear up. without_good_checkpoint: runs that are
    known to have none.
    """
    runs = sorted(path for path in bench.runs.glob("run-*")) if bench.runs.exists() else []
    assert sorted(run["id"] for run in listed_runs(bench)) == sorted(run.name for run in runs)
    for run in runs:
        assert leftovers(run) == []
        if checkpoints.steps_present(run / "checkpoints") and run.name not in without_good_checkpoint:
            assert_loads(checkpoints.newest_good(run / "checkpoints").directory)
    made = bench.runs / ".new"
    assert not made.exists() or list(made.iterdir()) == []
    assert half_made_datasets(bench.directory / "data") == []


def listed_runs(bench: Bench) -> list[dict[str, Any]]:
    """What `runs ls` tells, as a program reads it."""
    shown = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(shown):
        assert run_in_this_process(run_app, ["runs", "ls", "--json", "--runs", str(bench.runs)]) == 0
    shown.seek(0)
    rows: list[dict[str, Any]] = json.load(shown)["runs"]
    return rows


def assert_loads(checkpoint: Path) -> None:
    """Every tensor of a checkpoint can be read."""
    groups = sorted(checkpoint.glob("*.safetensors"))
    # what was imported may hold averages only
    imported = (checkpoint.parents[1] / "import.json").is_file()
    assert "model.safetensors" in [path.name for path in groups] or (imported and groups)
    for path in groups:
        tensors = checkpoints.read_tensors(checkpoint, path.stem)
        assert all(tensor.isfinite().all() for tensor in tensors.values())


def half_made_datasets(home: Path) -> list[Path]:
    """Whatever lies in a data home and is no part of a dataset."""
    return list(home.rglob(".*")) if home.exists() else []


def peak_memory_bytes(process: Started) -> int:
    """The most memory that a process had, as of a moment before its end."""
    peak_kib = 0
    while process.running():
        with contextlib.suppress(OSError, IndexError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak_kib = int(status.partition("VmHWM:")[2].split()[0])
        time.sleep(0.001)
    assert peak_kib > 0
    return 1024 * peak_kib
