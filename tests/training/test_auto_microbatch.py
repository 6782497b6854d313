"""`training.microbatch = auto`: as many images as fit, found once, and the same numbers."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

import pytest

from runs_in_processes import (
    NEW,
    RESUME,
    Moment,
    assert_same_training,
    attempts,
    fork,
    fork_ranks,
    make_bench,
    rows,
)

AUTO = ("--set", "training.microbatch=auto")


@dataclass(frozen=True, kw_only=True)
class LittleMemory:
    """The process can take so much more memory than it has taken when the program starts."""

    more_bytes: int

    def arm(self):
        lines = Path("/proc/self/status").read_text().splitlines()
        (taken,) = (int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
        resource.setrlimit(resource.RLIMIT_DATA, (taken + self.more_bytes, resource.RLIM_INFINITY))


def test_where_all_fits_it_is_the_whole_share_and_bitwise_the_same(tmp_path):
    auto, plain = make_bench(tmp_path / "auto"), make_bench(tmp_path / "plain")
    fork(auto, *NEW, *AUTO).succeeds()
    fork(plain, *NEW).succeeds()
    assert attempts(auto.run())[0]["microbatch"] == attempts(plain.run())[0]["microbatch"] == 8
    assert_same_training(auto.run(), plain.run())


def test_with_little_memory_it_is_less_and_the_training_the_same(tmp_path):
    settings = ["training.batch_size=512", "model.dropout=0", "training.log_every=1"]
    options = ["--steps", "3", *(option for setting in settings for option in ("--set", setting))]
    limited, plain = make_bench(tmp_path / "limited"), make_bench(tmp_path / "plain")
    memory = LittleMemory(more_bytes=400 * 2**20)
    fork(limited, *NEW, *AUTO, *options, moment=memory).succeeds()
    fork(plain, *NEW, *options).succeeds()
    found = attempts(limited.run())[0]["microbatch"]
    assert 1 < found < 512
    assert attempts(plain.run())[0]["microbatch"] == 512
    for one, other in zip(rows(limited.run()), rows(plain.run()), strict=True):
        assert one.loss.overall == pytest.approx(other.loss.overall, rel=1e-4)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-3)

    # the same numbers with a fixed size that is too large end, and say what to set
    refused = fork(limited, *NEW, *options, moment=memory)
    assert refused.exit_code() == 1
    assert "error: there is not enough memory for microbatches of 512 images" in refused.errors
    assert "training.microbatch = 256 or auto" in refused.errors
    assert "model.checkpoint_blocks = true" in refused.errors


def test_a_resume_takes_what_was_found_and_changes_no_bit(tmp_path):
    settings = [*AUTO, "--set", "training.batch_size=512", "--steps", "2", "--set", "training.save_every=1"]
    memory = LittleMemory(more_bytes=400 * 2**20)
    whole, killed = make_bench(tmp_path / "whole"), make_bench(tmp_path / "killed")
    fork(whole, *NEW, *settings, moment=memory).succeeds()
    fork(killed, *NEW, *settings, moment=memory).succeeds()
    assert_same_training(killed.run(), whole.run(), step=2)
    found = attempts(whole.run())[0]["microbatch"]
    # with memory for more by then
    fork(killed, *RESUME, "--steps", "3").succeeds()
    fork(whole, *RESUME, "--steps", "3", moment=memory).succeeds()
    assert attempts(killed.run())[-1]["microbatch"] == found
    assert_same_training(killed.run(), whole.run(), step=3)
    # blocks that are computed again leave room: what was found before says nothing
    again = fork(killed, *RESUME, "--steps", "4", "--set", "model.checkpoint_blocks=true").succeeds()
    assert attempts(killed.run())[-1]["microbatch"] == 512
    assert f"note: microbatch {found} -> 512: the same training, but no longer bit by bit" in again.errors


def test_all_ranks_take_the_smallest_that_any_of_them_found(tmp_path):
    bench = make_bench(tmp_path)
    settings = [*AUTO, "--set", "training.batch_size=9"]
    ranks = fork_ranks(bench, 2, *NEW, *settings)
    assert [rank.exit_code() for rank in ranks] == [0, 0]
    # shares of 4 and 5 images
    assert attempts(bench.run())[0]["microbatch"] == 4


def test_a_kill_while_it_is_found_out_leaves_a_run_that_starts_again(tmp_path):
    bench = make_bench(tmp_path)
    moment = Moment(event="StepDone", step=1, signal_number=SIGKILL)
    assert fork(bench, *NEW, *AUTO, moment=moment).exit_code() == -SIGKILL
    fork(bench, *RESUME).succeeds()
    assert [attempt["microbatch"] for attempt in attempts(bench.run())] == [8, 8]
