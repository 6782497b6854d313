"""Pins and `diffcli runs prune`: disk space comes back, and nothing goes that somebody may want."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import runs_on_disk as disk
from diffcli.registry.create import Run
from diffcli.registry.lock import acquire_lock
from diffcli.registry.paths import RunPaths
from diffcli.registry.process import host_name
from diffcli.registry.run_record import pinned_steps
from diffcli.training import checkpoints
from runs_in_processes import NEW, PRESET, RESUME, STEPS, Bench, Started, fork, make_bench

_STEPS = (100, 200, 300, 400, 500)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A directory for runs that are made without training."""
    return Bench(directory=tmp_path)


@pytest.fixture
def run(bench: Bench) -> Run:
    """A stopped run with five checkpoints."""
    return disk.trained_run(bench.runs, *_STEPS, name="base")


def _prune(bench: Bench, *arguments: str) -> Started:
    return fork(bench, "runs", "prune", "base", "--yes", *arguments)


def _kept(run: Run) -> tuple[int, ...]:
    return checkpoints.steps_present(run.paths.checkpoints)


def _rows(process: Started) -> list[list[str]]:
    header, *rows = process.output.splitlines()
    assert header.split("\t") == ["id", "what", "step", "size"]
    return [row.split("\t") for row in rows]


def _set_aside(paths: RunPaths) -> None:
    for attempt, step in ((2, 600), (2, 700), (3, 600)):
        disk.save_checkpoint(paths.abandoned / f"{attempt:03d}" / "checkpoints", step)
    disk.save_checkpoint(paths.abandoned / "003" / "ema-snapshots", 650)


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ((), (400, 500)),
        (("--keep-last", "1"), (500,)),
        (("--keep-last", "4"), (200, 300, 400, 500)),
        (("--keep-last", "9"), _STEPS),
        (("--keep-every", "200"), (200, 400, 500)),
        (("--keep-last", "1", "--keep-every", "300"), (300, 500)),
    ],
)
def test_the_newest_stay_and_the_rest_goes(bench: Bench, run: Run, arguments: tuple[str, ...], kept) -> None:
    process = _prune(bench, *arguments).succeeds()
    assert _kept(run) == kept
    assert [row[:3] for row in _rows(process)] == [
        ["run-1", "checkpoint", str(step)] for step in _STEPS if step not in kept
    ]
    for step in kept:
        checkpoints.verify(run.paths.checkpoints / f"step-{step:06d}")
    assert {path.name for path in run.paths.checkpoints.iterdir()} == {f"step-{step:06d}" for step in kept}


def test_the_milestones_of_the_run_stay_unless_others_are_asked_for(bench: Bench) -> None:
    run = disk.trained_run(bench.runs, *_STEPS, name="base", keep_every=200)
    _prune(bench, "--keep-last", "1").succeeds()
    assert _kept(run) == (200, 400, 500)
    _prune(bench, "--keep-last", "1", "--keep-every", "0").succeeds()
    assert _kept(run) == (500,)


def test_pinned_checkpoints_stay_until_they_are_unpinned(bench: Bench, run: Run) -> None:
    pinned = fork(bench, "runs", "pin", "base@100", "run-1@300").succeeds()
    assert pinned.output == "run-1@100\nrun-1@300\n"
    assert "next: diffcli runs unpin run-1@100 run-1@300" in pinned.errors
    _prune(bench, "--keep-last", "1", "--keep-every", "0").succeeds()
    assert _kept(run) == (100, 300, 500)
    assert fork(bench, "runs", "unpin", "run-1@100").succeeds().output == "run-1@100\n"
    _prune(bench, "--keep-last", "1").succeeds()
    assert _kept(run) == (300, 500)


def test_a_pin_of_what_is_not_there_is_refused_with_what_is(bench: Bench, run: Run) -> None:
    disk.trained_run(bench.runs, 100, name="other")
    refused = fork(bench, "runs", "pin", "other@100", "base@150")
    assert refused.exit_code() == 3
    assert "run-1 has no checkpoint of step 150" in refused.errors
    assert "100, 200, 300, 400, 500" in refused.errors
    # all of them or none
    assert pinned_steps(RunPaths(bench.run(2))) == frozenset()
    assert fork(bench, "runs", "pin", "bsae").exit_code() == 3


def test_a_pinned_run_is_not_removed_and_the_advice_helps(bench: Bench, run: Run) -> None:
    fork(bench, "runs", "pin", "run-1", "run-1@200").succeeds()
    refused = fork(bench, "runs", "rm", "base", "--yes")
    assert refused.exit_code() == 2
    assert "run-1 is pinned" in refused.errors
    assert "diffcli runs unpin run-1 run-1@200" in refused.errors
    fork(bench, "runs", "unpin", "run-1", "run-1@200").succeeds()
    fork(bench, "runs", "rm", "base", "--yes").succeeds()


def test_lists_and_details_show_pins_snapshots_and_what_was_set_aside(bench: Bench, run: Run) -> None:
    _set_aside(run.paths)
    for step in (50, 100):
        disk.save_checkpoint(run.paths.ema_snapshots, step)
    (run.paths.checkpoints / "step-000300").rename(run.paths.checkpoints / "damaged-step-000300")
    fork(bench, "runs", "pin", "run-1", "run-1@200").succeeds()
    header, row = fork(bench, "runs", "ls").succeeds().output.splitlines()
    assert (header.split("\t")[-1], row.split("\t")[-1]) == ("pinned", "run, @200")
    shown = fork(bench, "runs", "show", "run-1").succeeds().output.splitlines()
    facts = {(part, name): value for part, name, value in (line.split("\t") for line in shown)}
    assert facts["run", "pinned"] == "run, @200"
    assert facts["checkpoints", "step 200"].endswith(", pinned")
    assert not facts["checkpoints", "step 100"].endswith("pinned")
    assert ("checkpoints", "step 300") not in facts
    assert ("damaged", "checkpoints/damaged-step-000300") in facts
    assert facts["ema-snapshots", "count"].startswith("2, ")
    assert facts["ema-snapshots", "steps"] == "50, 100"
    assert [name for part, name in facts if part == "abandoned"] == [
        "checkpoint 600, by attempt 2",
        "checkpoint 700, by attempt 2",
        "checkpoint 600, by attempt 3",
        "EMA snapshot 650, by attempt 3",
    ]


def test_damaged_newer_checkpoints_neither_count_nor_go(bench: Bench, run: Run) -> None:
    for step in (400, 500):
        disk.damage(run.paths.checkpoints / f"step-{step:06d}")
    _prune(bench).succeeds()
    assert _kept(run) == (200, 300, 400, 500)


def test_when_none_is_good_none_goes(bench: Bench, run: Run) -> None:
    for step in _STEPS:
        disk.damage(run.paths.checkpoints / f"step-{step:06d}")
    refused = _prune(bench)
    assert refused.exit_code() == 5
    assert "diffcli runs repair run-1" in refused.errors
    assert _kept(run) == _STEPS


def test_when_pins_cannot_be_read_none_goes(bench: Bench, run: Run) -> None:
    run.paths.annotations.write_text("{")
    refused = fork(bench, "runs", "prune", "run-1", "--yes")
    assert refused.exit_code() == 5
    assert "annotations.json" in refused.errors
    assert _kept(run) == _STEPS


def test_snapshots_go_only_when_asked_and_twice_is_as_once(bench: Bench, run: Run) -> None:
    for step in range(50, 501, 50):
        disk.save_checkpoint(run.paths.ema_snapshots, step)
    _prune(bench).succeeds()
    assert len(checkpoints.steps_present(run.paths.ema_snapshots)) == 10
    for _ in range(2):
        _prune(bench, "--ema-snapshots-every", "200").succeeds()
        assert checkpoints.steps_present(run.paths.ema_snapshots) == (200, 400, 500)
    _prune(bench, "--ema-snapshots-every", "9999").succeeds()
    assert checkpoints.steps_present(run.paths.ema_snapshots) == (500,)


def test_what_rollbacks_set_aside_goes_only_when_asked(bench: Bench, run: Run) -> None:
    _set_aside(run.paths)
    _prune(bench, "--keep-last", "9").succeeds()
    assert len(list(run.paths.abandoned.glob("*/*/step-*"))) == 4
    process = _prune(bench, "--keep-last", "9", "--abandoned").succeeds()
    assert [row[1:3] for row in _rows(process)] == [
        ["abandoned checkpoint", "600"],
        ["abandoned checkpoint", "700"],
        ["abandoned checkpoint", "600"],
        ["abandoned EMA snapshot", "650"],
    ]
    assert list(run.paths.abandoned.iterdir()) == []
    assert _kept(run) == _STEPS


def test_what_a_real_rollback_set_aside_is_shown_and_freed(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, PRESET + "ema_snapshot_every = 4\n")
    fork(bench, *NEW, "--set", "training.keep_last=9").succeeds()
    fork(bench, *RESUME, "--rollback", "8").succeeds()
    paths = RunPaths(bench.run())
    shown = fork(bench, "runs", "show", "run-1").succeeds().output
    assert f"abandoned\tcheckpoint {STEPS}, by attempt 2\t" in shown
    assert f"abandoned\tEMA snapshot {STEPS}, by attempt 2\t" in shown
    assert "ema-snapshots\tsteps\t4, 8, 12\n" in shown
    pruned = fork(bench, "runs", "prune", "run-1", "--abandoned", "--ema-snapshots-every", "8", "--yes")
    assert [row[1:3] for row in _rows(pruned.succeeds())] == [
        ["checkpoint", "4"],
        ["EMA snapshot", "4"],
        ["abandoned checkpoint", str(STEPS)],
        ["abandoned EMA snapshot", str(STEPS)],
    ]
    assert list(paths.abandoned.iterdir()) == []
    assert checkpoints.newest_good(paths.checkpoints).step == STEPS
    assert fork(bench, "runs", "repair").succeeds().output.count("\n") == 1


def test_of_what_rollbacks_set_aside_the_pinned_stays(bench: Bench, run: Run) -> None:
    fork(bench, "runs", "pin", "base@500").succeeds()
    # as a rollback moves it
    place = run.paths.abandoned / "002" / "checkpoints" / "step-000500"
    place.parent.mkdir(parents=True)
    (run.paths.checkpoints / "step-000500").rename(place)
    _prune(bench, "--abandoned").succeeds()
    assert place.is_dir()
    fork(bench, "runs", "unpin", "base@500").succeeds()
    _prune(bench, "--abandoned").succeeds()
    assert not place.exists()


def test_a_dry_run_tells_the_same_and_deletes_nothing(bench: Bench, run: Run) -> None:
    _set_aside(run.paths)
    dry = fork(bench, "runs", "prune", "run-1", "--dry-run", "--abandoned").succeeds()
    assert "would be freed: " in dry.errors
    assert _kept(run) == _STEPS
    done = _prune(bench, "--abandoned").succeeds()
    assert done.output == dry.output
    assert len(_rows(done)) == 7
    assert done.errors == dry.errors.replace("would be freed", "freed")


def test_where_nobody_can_be_asked_it_needs_a_yes(bench: Bench, run: Run) -> None:
    refused = fork(bench, "runs", "prune", "run-1")
    assert refused.exit_code() == 2
    assert "--yes" in refused.errors
    assert "checkpoint run-1@100, checkpoint run-1@200, checkpoint run-1@300" in refused.errors
    assert _kept(run) == _STEPS
    # there is nothing to ask for
    fork(bench, "runs", "prune", "run-1", "--keep-last", "5").succeeds()


def test_a_run_in_use_is_refused_and_no_other_is_pruned(bench: Bench, run: Run) -> None:
    busy = disk.trained_run(bench.runs, *_STEPS)
    with acquire_lock(busy.paths):
        refused = _prune(bench, "run-2")
        assert refused.exit_code() == 4
    assert f"run-2 is in use by {os.getpid()}@{host_name()}" in refused.errors
    assert _kept(run) == _kept(busy) == _STEPS


def test_a_run_that_another_machine_may_be_training_is_refused(bench: Bench, run: Run) -> None:
    disk.set_status(run, state="running", process=disk.process_elsewhere())
    refused = _prune(bench)
    assert refused.exit_code() == 4
    assert "77@another-host" in refused.errors
    assert _kept(run) == _STEPS


def test_a_run_that_fell_silent_on_another_machine_is_refused(bench: Bench, run: Run) -> None:
    disk.make_silent(run, minutes=10)
    refused = _prune(bench)
    assert refused.exit_code() == 4
    assert "may be in use by 77@another-host" in refused.errors
    assert _kept(run) == _STEPS
    # the advice, followed to the letter
    assert "diffcli runs repair run-1 --force" in refused.errors
    fork(bench, "runs", "repair", "run-1", "--force").succeeds()
    _prune(bench).succeeds()
    assert _kept(run) == (400, 500)


def test_a_crashed_run_can_be_pruned(bench: Bench, run: Run) -> None:
    disk.set_status(run, state="running", process=disk.dead_process())
    _prune(bench).succeeds()
    assert _kept(run) == (400, 500)


def test_an_interrupted_deletion_leaves_no_half_checkpoint(bench: Bench, run: Run) -> None:
    # as a kill between the two parts of a deletion leaves it
    removing = run.paths.checkpoints / ".removing-step-000100-77"
    (run.paths.checkpoints / "step-000100").rename(removing)
    assert _kept(run) == _STEPS[1:]
    _prune(bench).succeeds()
    assert _kept(run) == (400, 500)
    checkpoints.clear_leftovers(run.paths.checkpoints)
    assert not removing.exists()
