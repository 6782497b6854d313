"""Training in several processes: the same data and loss as in one, and no bit lost to a stop at any rank."""

from __future__ import annotations

import math
import os
import time
from signal import SIGCONT, SIGINT, SIGKILL, SIGSTOP, SIGTERM

import pytest
import torch

from diffcli.registry.create import open_run
from diffcli.registry.lock import lock_holder
from diffcli.training import checkpoints
from runs_in_processes import (
    NEW,
    RESUME,
    SAVE_EVERY,
    STEPS,
    Moment,
    assert_same_training,
    attempts,
    checkpoint,
    fork,
    fork_ranks,
    leftovers,
    make_bench,
    options,
    ranks_of,
    rows,
    start,
    status,
    wait_until,
)

FOREVER = ("--steps", "100000", *options("training.lr_anneal_steps=0"))


def exit_codes(ranks):
    return [rank.exit_code() for rank in ranks]


def train_in_ranks(bench, world_size, *arguments):
    """A whole training, which leaves no doubt about how many processes took part."""
    ranks = fork_ranks(bench, world_size, *arguments)
    assert exit_codes(ranks) == [0] * world_size, [rank.errors for rank in ranks]
    assert f"training run-1 on cpu in {world_size} processes" in ranks[0].errors
    assert [rank.output for rank in ranks[1:]] == [""] * (world_size - 1)
    assert attempts(bench.run())[-1]["world_size"] == world_size
    return ranks


@pytest.fixture(scope="module", params=[2, 4])
def uninterrupted(request, tmp_path_factory):
    """A world size, and a bench with one run of that many ranks."""
    world_size = request.param
    bench = make_bench(tmp_path_factory.mktemp(f"ranks-{world_size}"))
    train_in_ranks(bench, world_size, *NEW)
    return world_size, bench


def test_a_kill_of_all_ranks_and_a_resume_change_no_bit(uninterrupted, bench):
    world_size, whole = uninterrupted
    # the first stands still where the kill shall find it, and the others wait for it
    ranks = fork_ranks(
        bench, world_size, *NEW, moment=Moment(event="IntervalLogged", step=6, signal_number=SIGSTOP)
    )
    wait_until(lambda: [row.step for row in rows(bench.run())] == [3, 6], ranks[0])
    for rank in ranks:
        rank.send(SIGKILL)
    assert exit_codes(ranks) == [-SIGKILL] * world_size
    resumed = train_in_ranks(bench, world_size, *RESUME)
    assert "run-1 goes on from step 4" in resumed[0].errors
    assert attempts(bench.run())[-1]["first_step"] == 4
    assert leftovers(bench.run()) == []
    assert_same_training(bench.run(), whole.run())


def test_an_interrupt_of_the_first_rank_stops_all_and_a_resume_changes_no_bit(uninterrupted, bench):
    world_size, whole = uninterrupted
    # heard of in step 4, and agreed on in step 5
    ranks = fork_ranks(bench, world_size, *NEW, moment=Moment(event="StepDone", step=3, signal_number=SIGINT))
    assert exit_codes(ranks) == [128 + SIGINT] * world_size
    assert "run-1 was stopped after step 5; its state is saved" in ranks[0].errors
    # the first speaks for all
    assert not any("stopped" in rank.errors for rank in ranks[1:])
    assert checkpoints.steps_present(bench.run() / "checkpoints") == (4, 5)
    # the sums of the unfinished interval are kept rank by rank
    assert len(checkpoints.read_counters(checkpoint(bench.run(), 5))["interval_sums"]) == world_size
    train_in_ranks(bench, world_size, *RESUME)
    assert_same_training(bench.run(), whole.run())


def test_under_torchrun_a_terminate_to_one_rank_stops_both_at_the_same_step(bench):
    torchrun = ("-m", "torch.distributed.run", "--nproc_per_node", "2")
    launcher = start(bench, *NEW, *FOREVER, launcher=torchrun, ACCELERATE_USE_CPU="true")
    run = bench.run()
    wait_until(checkpoint(run, SAVE_EVERY).exists, launcher)
    pids = ranks_of(launcher)
    assert sorted(pids) == [0, 1]
    os.kill(pids[1], SIGTERM)
    launcher.exit_code()
    assert "training run-1 on cpu in 2 processes" in launcher.errors
    said = status(run)
    assert (said["state"], said["exit_code"], said["world_size"]) == ("stopped", 143, 2)
    stopped = f"run-1 was stopped after step {said['step']}; its state is saved"
    assert launcher.errors.count(stopped) == 1
    assert checkpoints.newest_good(run / "checkpoints").step == said["step"]
    assert leftovers(run) == []
    assert not any(gone(pid) is None for pid in pids.values())
    # what torch and the launcher have to say of their own is no flood
    assert "unused parameters" not in launcher.errors
    assert "exitcode  : 143" in launcher.errors


def gone(pid):
    """True once there is no such process; None while there is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return None


def test_a_killed_rank_ends_the_others_within_seconds_and_fewer_can_go_on(bench):
    ranks = fork_ranks(bench, 3, *NEW, *FOREVER)
    run = bench.run()
    wait_until(checkpoint(run, SAVE_EVERY).exists, ranks[0])
    killed_at = time.monotonic()
    ranks[1].send(SIGKILL)
    assert exit_codes(ranks) == [1, -SIGKILL, 1]
    assert time.monotonic() - killed_at < 10
    assert "error: another process of this training has ended or does not answer" in ranks[0].errors
    assert "Traceback" not in ranks[0].errors + ranks[2].errors
    assert (status(run)["state"], status(run)["exit_code"]) == ("failed", 1)
    assert lock_holder(open_run(bench.runs, "run-1").paths) is None
    steps = checkpoints.newest_good(run / "checkpoints").step + 2
    resumed = fork(bench, *RESUME, "--steps", str(steps)).succeeds()
    assert "note: processes 3 -> 1: the same training, but no longer bit by bit" in resumed.errors
    assert [attempt["world_size"] for attempt in attempts(run)] == [3, 1]
    assert status(run)["state"] == "completed"


def test_periodic_saves_that_fail_only_warn_and_a_last_one_ends_all_ranks_alike(bench):
    ranks = fork_ranks(bench, 2, *NEW, *FOREVER)
    run = bench.run()
    wait_until(checkpoint(run, SAVE_EVERY).exists, ranks[0])
    for rank in ranks:
        rank.send(SIGSTOP)
    (run / "checkpoints").rename(run / "moved")
    (run / "checkpoints").write_bytes(b"")
    for rank in ranks:
        rank.send(SIGCONT)
    wait_until(lambda: ranks[0].errors.count("warning: nothing was saved at step") > 2, ranks[0])
    assert ranks[1].running()
    ranks[1].send(SIGTERM)
    assert exit_codes(ranks) == [6, 6]
    assert "error: cannot write runs/run-1/checkpoints" in ranks[0].errors
    assert "cannot write" not in ranks[1].errors
    assert (status(run)["state"], status(run)["exit_code"]) == ("failed", 6)
    assert checkpoints.newest_good(run / "moved").step >= SAVE_EVERY


def test_a_rank_that_waits_for_the_others_leaves_when_it_is_told_to(bench):
    waiting, missing = fork_ranks(bench, 2, *NEW)
    missing.send(SIGKILL)
    time.sleep(2)
    waiting.send(SIGTERM)
    assert waiting.exit_code(timeout=10) in (143, -SIGTERM)
    assert not bench.runs.exists()


NO_DROPOUT = options("model.dropout=0", "training.log_every=1")
UNEQUAL = options(
    "training.batch_size=7", "training.schedule_sampler=loss-second-moment", "diffusion.steps=6"
)


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """The runs of one training without dropout, by how it was spread over processes and microbatches."""

    def bench():
        return make_bench(tmp_path_factory.mktemp("curve"))

    def one(*settings):
        place = bench()
        return place, fork(place, *NEW, *NO_DROPOUT, *settings)

    def two(*settings):
        place = bench()
        train_in_ranks(place, 2, *NEW, *NO_DROPOUT, *settings)
        return place.run()

    started = {
        "one": one(),
        "microbatches": one(*options("training.microbatch=3")),
        "one, unequal": one(*UNEQUAL),
        "microbatches, unequal": one(*UNEQUAL, *options("training.microbatch=2")),
    }
    for _, process in started.values():
        process.succeeds()
    runs = {name: place.run() for name, (place, _) in started.items()}
    return runs | {
        "two": two(),
        "two, unequal": two(*UNEQUAL),
        "two with microbatches, unequal": two(*UNEQUAL, *options("training.microbatch=2")),
    }


SAME = [
    ("one", "microbatches"),
    ("one", "two"),
    ("one, unequal", "microbatches, unequal"),
    ("one, unequal", "two, unequal"),
    ("one, unequal", "two with microbatches, unequal"),
]


def quartiles(term):
    """A quartile of the timesteps that none was drawn of, which both must have in common, is not a number."""
    return [math.nan if mean is None else mean for mean in term.quartiles]


@pytest.mark.parametrize(("reference", "other"), SAME, ids=[other for _, other in SAME])
def test_the_loss_curve_does_not_depend_on_how_the_batch_is_spread(curves, reference, other):
    expected, found = rows(curves[reference]), rows(curves[other])
    assert [row.step for row in expected] == list(range(1, STEPS + 1))
    assert [row.step for row in found] == list(range(1, STEPS + 1))
    for one, two in zip(expected, found, strict=True):
        assert two.images_seen == one.images_seen
        assert two.loss.overall == pytest.approx(one.loss.overall, rel=1e-4)
        assert two.grad_norm == pytest.approx(one.grad_norm, rel=1e-3)
        assert two.param_norm == pytest.approx(one.param_norm, rel=1e-5)
        for term, same in ((one.loss, two.loss), (one.mse, two.mse), (one.vb, two.vb)):
            assert quartiles(same) == pytest.approx(quartiles(term), rel=1e-3, nan_ok=True)


@pytest.mark.parametrize("other", ["two, unequal", "two with microbatches, unequal", "microbatches, unequal"])
def test_the_schedule_sampler_learns_the_same_history(curves, other):
    expected, found = (
        checkpoints.read_tensors(checkpoint(curves[name], STEPS), "schedule_sampler")
        for name in ("one, unequal", other)
    )
    # equal counts: the same timesteps were drawn in the same order, also once the sampler had learned
    assert torch.equal(found["counts"], expected["counts"])
    assert (expected["counts"] == 10).all()
    torch.testing.assert_close(found["history"], expected["history"], rtol=1e-3, atol=1e-6)
