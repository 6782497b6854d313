"""A loss that is not finite, on whichever rank: no update is applied, all stop together, and the way back."""

from __future__ import annotations

import dataclasses
import math
import os
from signal import SIGKILL

import pytest

from diffcli.registry.events import read_events
from diffcli.training import checkpoints
from runs_in_processes import (
    NEW,
    RESUME,
    Moment,
    NotFinite,
    assert_same_training,
    attempts,
    checkpoint,
    content,
    fork,
    fork_ranks,
    leftovers,
    make_bench,
    options,
    rows,
    status,
)


@pytest.mark.parametrize(("world_size", "rank"), [(1, 0), (2, 1)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_on_one_rank_stops_all_before_anything_of_it_is_saved(
    world_size, rank, value, bench, tmp_path
):
    trouble = NotFinite(step=7, rank=rank, value=value)
    ranks = fork_ranks(bench, world_size, *NEW, moment=trouble)
    assert [process.exit_code() for process in ranks] == [7] * world_size
    run = bench.run()
    # found when the checkpoint of step 8 was due, before the row of step 9
    assert "error: training diverged at step 7: the loss or its gradient was not finite" in ranks[0].errors
    assert "the newest checkpoint is that of step 4" in ranks[0].errors
    assert "--rollback STEP" in ranks[0].errors
    said = status(run)
    assert (said["state"], said["exit_code"], said["step"]) == ("diverged", 7, 8)
    assert [(event.kind, event.step) for event in read_events(run / "events.jsonl")][-1] == ("diverged", 7)
    assert checkpoints.newest_good(run / "checkpoints").step == 4
    assert [row.step for row in rows(run)] == [3, 6]
    assert leftovers(run) == []
    # the fault was of that attempt: what was saved goes on to the same bits as if there had been none
    if world_size == 1 and math.isnan(value):
        resumed = fork(bench, *RESUME).succeeds()
        assert "note: run-1 diverged, and the same numbers lead there again" in resumed.errors
        whole = make_bench(tmp_path / "whole")
        fork(whole, *NEW).succeeds()
        assert_same_training(run, whole.run())


def test_a_learning_rate_that_is_too_high_is_found_at_the_next_row(bench):
    diverging = fork(bench, *NEW, *options("training.lr=1e30", "training.save_every=100"))
    assert diverging.exit_code() == 7
    # finite weights of 1e30 after the first update; the second has no finite gradient
    assert "error: training diverged at step 2:" in diverging.errors
    assert "there is no checkpoint" in diverging.errors
    assert status(bench.run())["step"] == 3
    assert not (bench.run() / "metrics.jsonl").exists()


def test_fp16_that_overflows_fifty_times_in_a_row_has_diverged(bench):
    settings = options("training.lr=1e8", "training.lr_anneal_steps=0", "training.batch_size=2")
    diverging = fork(bench, *NEW, "--precision", "fp16", "--steps", "200", *settings)
    assert diverging.exit_code() == 7
    # after one update every forward pass overflows
    assert "error: training diverged at step 51: fp16 overflowed in 50 steps in a row" in diverging.errors
    counters = checkpoints.read_counters(checkpoint(bench.run(), 48))
    assert counters["overflows_in_a_row"] == 47
    assert counters["optimizer_updates"] == 1
    resumed = fork(bench, *RESUME)
    assert resumed.exit_code() == 7
    assert "training diverged at step 51" in resumed.errors


def test_a_rollback_goes_on_from_an_earlier_checkpoint_with_other_numbers(bench, tmp_path):
    fork(bench, *NEW).succeeds()
    run = bench.run()
    before = {step: content(checkpoint(run, step)) for step in (4, 8, 12)}
    back = fork(bench, *RESUME, "--rollback", "4").succeeds()
    assert "run-1 goes back to step 4, and on with other random numbers" in back.errors
    attempt = attempts(run)[-1]
    assert (attempt["first_step"], attempt["rolled_back"]) == (4, True)
    (change,) = attempt["changes"]
    assert (change["key"], change["before"]) == ("training.seed", 0)
    assert content(checkpoint(run, 4)) == before[4]
    assert content(checkpoint(run, 12)) != before[12]
    abandoned = run / "abandoned" / "002" / "checkpoints"
    assert {step: content(abandoned / f"step-{step:06d}") for step in (8, 12)} == {
        step: before[step] for step in (8, 12)
    }
    assert [row.step for row in rows(run)] == [3, 6, 9, 12]

    # the other numbers are a function of the step and the attempt, and a resume keeps them
    again = make_bench(tmp_path / "again")
    fork(again, *NEW).succeeds()
    killed = Moment(event="StepDone", step=9, signal_number=SIGKILL)
    assert fork(again, *RESUME, "--rollback", "4", moment=killed).exit_code() == -SIGKILL
    fork(again, *RESUME).succeeds()
    assert_same_training(again.run(), run)


@dataclasses.dataclass(frozen=True)
class KilledInARollback:
    """The process is killed when it has moved one of the checkpoints."""

    def arm(self):
        from diffcli.training import checkpoints

        rename_of = checkpoints.Path.rename

        def rename(path, target):
            moved = rename_of(path, target)
            if "abandoned" in str(target):
                os.kill(os.getpid(), SIGKILL)
            return moved

        checkpoints.Path.rename = rename


def test_a_rollback_that_was_killed_is_finished_by_the_next_resume(bench, tmp_path):
    fork(bench, *NEW).succeeds()
    killed = fork(bench, *RESUME, "--rollback", "4", moment=KilledInARollback())
    assert killed.exit_code() == -SIGKILL
    assert checkpoints.steps_present(bench.run() / "checkpoints") == (4, 8)
    fork(bench, *RESUME).succeeds()
    assert [attempt["first_step"] for attempt in attempts(bench.run())] == [0, 4, 4]
    # with the other numbers: it is the run that was not killed
    whole = make_bench(tmp_path / "whole")
    fork(whole, *NEW).succeeds()
    fork(whole, *RESUME, "--rollback", "4").succeeds()
    assert_same_training(bench.run(), whole.run())


def test_a_seed_of_ones_own_is_taken_by_a_rollback(bench):
    fork(bench, *NEW).succeeds()
    fork(bench, *RESUME, "--rollback", "8", "--set", "training.seed=7").succeeds()
    assert attempts(bench.run())[-1]["changes"] == [{"key": "training.seed", "before": 0, "after": 7}]


def test_a_rollback_to_where_there_is_no_checkpoint_moves_nothing(bench):
    fork(bench, *NEW).succeeds()
    refused = fork(bench, *RESUME, "--rollback", "5")
    assert refused.exit_code() == 3
    assert "there is no checkpoint of step 5" in refused.errors
    assert "present: 4, 8, 12" in refused.errors
    assert checkpoints.steps_present(bench.run() / "checkpoints") == (4, 8, 12)
    assert not (bench.run() / "abandoned").exists()
    alone = fork(bench, *NEW, "--rollback", "4")
    assert (alone.exit_code(), "--resume RUN" in alone.errors) == (2, True)
