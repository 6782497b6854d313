"""A run that a real process trains: every command that would change it is refused and names that process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest

from diffcli.registry.process import host_name
from runs_in_processes import (
    NEW,
    STEPS,
    Bench,
    Moment,
    Started,
    fork,
    kill_survivors,
    make_bench,
    status,
    wait_until,
)


@pytest.fixture
def nothing_left_running() -> None:
    """Not after each test: they share a trainer."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A directory whose run-1 is in training."""
    yield make_bench(tmp_path_factory.mktemp("in-use"))
    kill_survivors()


@pytest.fixture(scope="module")
def trainer(bench: Bench) -> Started:
    """It stands still after step 9, when the checkpoint of step 4 has long been written."""
    process = fork(bench, *NEW, moment=Moment(event="StepDone", step=9, signal_number=SIGSTOP))
    wait_until(lambda: _state(bench) == "stale", process)
    return process


def _state(bench: Bench) -> str:
    rows = fork(bench, "runs", "ls").succeeds().output.splitlines()[1:]
    return rows[0].split("\t")[3] if rows else ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs", "rm", "run-1", "--yes"),
        ("runs", "prune", "run-1", "--yes", "--keep-last", "1"),
        ("runs", "prune", "run-1", "--dry-run"),
        ("train", "--resume", "run-1"),
    ],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_what_would_change_a_run_in_training_is_refused(
    bench: Bench, trainer: Started, arguments: tuple[str, ...]
) -> None:
    before = sorted(bench.run().rglob("*"))
    refused = fork(bench, *arguments)
    assert refused.exit_code() == 4
    assert f"run-1 is in use by {trainer.pid}@{host_name()}" in refused.errors
    assert "Traceback" not in refused.errors
    assert sorted(bench.run().rglob("*")) == before


def test_a_repair_passes_over_a_run_in_training_also_by_force(bench: Bench, trainer: Started) -> None:
    before = sorted(bench.run().rglob("*"))
    process = fork(bench, "runs", "repair", "--force").succeeds()
    assert f"run-1 is in use by {trainer.pid}@{host_name()}" in process.output
    assert "1 in use" in process.errors
    assert sorted(bench.run().rglob("*")) == before
    assert status(bench.run())["state"] == "running"


def test_a_run_in_training_can_be_pinned_and_goes_on_undisturbed(bench: Bench, trainer: Started) -> None:
    fork(bench, "runs", "pin", "run-1", "run-1@4").succeeds()
    trainer.send(SIGCONT)
    trainer.succeeds()
    assert (status(bench.run())["state"], status(bench.run())["step"]) == ("completed", STEPS)
    assert _state(bench) == "completed"
    assert (bench.run() / "checkpoints" / "step-000004").is_dir()


def test_a_killed_trainer_leaves_a_run_that_can_be_removed(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    trainer = fork(bench, *NEW, moment=Moment(event="StepDone", step=6, signal_number=SIGKILL))
    assert trainer.exit_code() == -SIGKILL
    assert _state(bench) == "crashed"
    fork(bench, "runs", "rm", "run-1", "--yes").succeeds()
    assert not bench.run().exists()
