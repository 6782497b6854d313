"""SIGKILL at named places and at random moments: what was saved stays, and a resume changes no bit."""

from __future__ import annotations

import dataclasses
import itertools
import random
import time
from dataclasses import dataclass
from signal import SIGKILL

import pytest

from diffcli.registry.create import open_run
from diffcli.registry.events import read_events
from diffcli.registry.metrics import read_metrics
from diffcli.registry.state import observe
from diffcli.registry.status import read_status
from diffcli.training import checkpoints
from runs_in_processes import (
    FAILPOINTS,
    NEW,
    RESUME,
    Failpoint,
    assert_same_training,
    attempts,
    fork,
    fork_ranks,
    leftovers,
    make_bench,
    wait_until,
)

# a checkpoint every other step, so that many kills fall into a save, and snapshots in between
SETTINGS = (
    "training.save_every=2",
    "training.keep_last=2",
    "training.ema_snapshot_every=3",
    "training.log_every=1",
)
OPTIONS = tuple(option for setting in SETTINGS for option in ("--set", setting))
# that our own launcher and torchrun give the ranks left when one has failed
GRACE_SECONDS = 30
# at places that a process comes by every few steps
VISITS = (2, 9)


def newest_step(run):
    return max(checkpoints.steps_present(run / "checkpoints"), default=0)


def steps_said_to_be_saved(run):
    return [event.step for event in read_events(run / "events.jsonl") if event.kind == "saved"]


def assert_same_snapshots(run, other):
    stored = {path.relative_to(run): path.read_bytes() for path in (run / "ema-snapshots").rglob("*.*")}
    expected = {path.relative_to(other): path.read_bytes() for path in (other / "ema-snapshots").rglob("*.*")}
    assert stored == expected


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    bench = make_bench(tmp_path_factory.mktemp("whole"))
    fork(bench, *NEW, *OPTIONS).succeeds()
    return bench.run()


@pytest.mark.parametrize("place", FAILPOINTS)
def test_a_kill_at_a_named_place_loses_nothing_that_was_saved(place, tmp_path, whole):
    bench = make_bench(tmp_path)
    run = bench.run()
    # the third status is the last one, which says that the run is complete
    trouble = Failpoint(place=place, visit=2 if place == "after the status" else 3)
    assert fork(bench, *NEW, *OPTIONS, moment=trouble).exit_code() == -SIGKILL
    paths = open_run(bench.runs, "run-1").paths
    assert observe(paths, read_status(paths)).state == "crashed"
    newest = newest_step(run)
    assert newest >= max(steps_said_to_be_saved(run), default=0)
    if newest:
        assert checkpoints.newest_good(run / "checkpoints").step == newest
    fork(bench, *RESUME).succeeds()
    assert attempts(run)[-1]["first_step"] == newest
    assert leftovers(run) == []
    assert_same_training(run, whole)
    assert_same_snapshots(run, whole)


@dataclass
class Tally:
    """What a trial has come to."""

    kills: int = 0
    at_named_places: int = 0
    resumes: int = 0
    checkpoints_lost: list[str] = dataclasses.field(default_factory=list)
    steps_done_again: int = 0
    ended_by_the_launcher: int = 0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A training of some seconds that is killed over and over."""

    world_size: int
    steps: int
    kills: int
    longest_seconds: float


TRIALS = [
    Trial(world_size=1, steps=60, kills=110, longest_seconds=1.5),
    Trial(world_size=2, steps=40, kills=60, longest_seconds=2.5),
    Trial(world_size=4, steps=30, kills=40, longest_seconds=4.0),
]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: f"{trial.world_size} ranks")
def test_many_kills_lose_no_checkpoint_and_change_no_bit(trial, tmp_path, capsys):
    options = [*OPTIONS, "--steps", str(trial.steps), "--set", "training.lr_anneal_steps=0"]
    whole = make_bench(tmp_path / "whole")
    ended = fork_ranks(whole, trial.world_size, *NEW, *options)
    assert [rank.exit_code() for rank in ended] == [0] * trial.world_size
    chance, tally = random.Random(trial.world_size), Tally()
    for number in itertools.count():
        if tally.kills >= trial.kills:
            break
        bench = make_bench(tmp_path / f"run-{number}")
        kill_until_complete(bench, trial, options, chance, tally)
        assert leftovers(bench.run()) == []
        assert_same_training(bench.run(), whole.run(), step=trial.steps)
        assert_same_snapshots(bench.run(), whole.run())
    assert tally.checkpoints_lost == []
    with capsys.disabled():
        print(
            f"\n{trial.world_size} ranks: {tally.kills} kills ({tally.at_named_places} at named places), "
            f"{tally.resumes} resumes, checkpoints lost = {len(tally.checkpoints_lost)}, "
            f"{tally.steps_done_again} steps done again, {tally.ended_by_the_launcher} ranks that a launcher "
            "would have ended, every end bitwise the uninterrupted one"
        )


def kill_until_complete(bench, trial, options, chance, tally):
    """Train, kill and resume until one attempt comes to the end."""
    run, arguments, number = bench.run(), [*NEW, *options], 0
    while True:
        number += 1
        named = chance.random() < 0.5
        trouble = Failpoint(place=chance.choice(list(FAILPOINTS)), visit=chance.randint(*VISITS))
        before = set(checkpoints.steps_present(run / "checkpoints"))
        ranks = fork_ranks(bench, trial.world_size, *arguments, moment=trouble if named else None)
        begun = run / "attempts" / f"{number:03d}.json"
        # a kill after the last word finds a run that is complete, which a resume leaves as it is
        wait_until(lambda: begun.exists() or not all(rank.running() for rank in ranks))  # noqa: B023
        if not named and begun.exists():
            time.sleep(chance.uniform(0, trial.longest_seconds))
            # all at once, or one, and the others notice
            for rank in chance.choice([ranks, [chance.choice(ranks)]]):
                rank.kill()
        codes = exit_codes(ranks, tally)
        if begun.exists():
            check_attempt(run, number, before, tally)
        if codes == [0] * trial.world_size:
            return
        assert -SIGKILL in codes, [rank.errors for rank in ranks]
        tally.kills += 1
        tally.at_named_places += named
        arguments = list(RESUME) if run.exists() else arguments


def exit_codes(ranks, tally):
    """Wait for all ranks as a launcher does: those that do not notice in time that one is gone are ended."""
    wait_until(lambda: not all(rank.running() for rank in ranks))
    noticed_by = time.monotonic() + GRACE_SECONDS
    for rank in ranks:
        while rank.running() and time.monotonic() < noticed_by:
            time.sleep(0.01)
    late = [rank for rank in ranks if rank.running()]
    tally.ended_by_the_launcher += len(late)
    for rank in late:
        rank.kill()
    return [rank.exit_code() for rank in ranks]


def check_attempt(run, number, before, tally):
    """That the attempt went on from the newest checkpoint there was, and what it had saved is there."""
    attempt = attempts(run)[number - 1]
    tally.resumes += number > 1
    first, expected = attempt["first_step"], max(before, default=0)
    if first != expected:
        tally.checkpoints_lost.append(f"{run} attempt {number} went on from {first}, not {expected}")
    newest, said = newest_step(run), max(steps_said_to_be_saved(run), default=0)
    if newest < said or (newest and checkpoints.newest_good(run / "checkpoints").step != newest):
        tally.checkpoints_lost.append(f"{run} attempt {number}: {newest} on disk, {said} said to be saved")
    logged = [entry.row.step for entry in read_metrics(run / "metrics.jsonl").rows if entry.attempt == number]
    tally.steps_done_again += max(0, max(logged, default=0) - newest)
