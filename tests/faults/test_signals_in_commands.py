"""Trials 4 and 8: a signal in each command, once and twice, also while a checkpoint is being written."""

from __future__ import annotations

import contextlib
import gzip
import os
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGTERM

import numpy as np
import pytest
from PIL import Image

from aftermath import assert_ended, assert_sound
from diffcli.data.prepared import PreparedDataset
from diffcli.training import checkpoints
from runs_in_processes import (
    NEW,
    RESUME,
    Started,
    assert_same_training,
    fork,
    status,
    wait_until,
)

SIGNALS = {SIGINT: 130, SIGTERM: 143}
PHOTOS = 60
FOREVER = ("--steps", "100000", "--set", "training.lr_anneal_steps=0", "--set", "training.log_every=1")


@pytest.mark.parametrize(("number", "code"), SIGNALS.items())
def test_train_saves_and_goes_on_to_the_same_bits(number, code, bench, trained):
    options = ("--steps", "6", "--set", "training.save_every=2")
    slow = fork(bench, *NEW, *options, moment=SlowSteps(seconds=0.3))
    wait_until((bench.run(2) / "metrics.jsonl").exists, slow)
    slow.send(number)
    assert_ended(slow, code, "stopping after this step, then saving", "diffcli train --resume run-2")
    said = status(bench.run(2))
    assert (said["state"], said["exit_code"]) == ("stopped", code)
    assert checkpoints.newest_good(bench.run(2) / "checkpoints").step == said["step"]
    assert_ended(fork(bench, "train", "--resume", "run-2"), 0, f"goes on from step {said['step']}")
    assert_same_training(bench.run(2), trained.run(), step=6)
    assert_sound(bench)


@dataclass(frozen=True, kw_only=True)
class SlowSteps:
    """Each optimizer step takes so long."""

    seconds: float

    def arm(self) -> None:
        """Lay the trap."""
        from diffcli.training import objective

        losses_of = objective.training_losses

        def training_losses(*arguments, **settings):
            time.sleep(self.seconds)
            return losses_of(*arguments, **settings)

        objective.training_losses = training_losses


@pytest.mark.parametrize(("number", "code"), SIGNALS.items())
def test_sample_keeps_what_it_has_drawn(number, code, bench):
    line = ("sample", "run-1", "--num", "12", "--batch-size", "4", "--steps", "25", "--device", "cpu")
    assert_ended(fork(bench, *line, "--name", "whole"), 0)
    samples = bench.run() / "samples"
    # --force, or the images would be taken from the whole ones
    stopped = fork(bench, *line, "--name", "stopped", "--force")
    wait_until(lambda: list((samples / ".stopped.parts").glob("batch-*.bin")), stopped)
    stopped.send(number)
    assert_ended(stopped, code, "stopping", "same command goes on")
    assert not (samples / "stopped").exists()
    assert_ended(fork(bench, *line, "--name", "stopped", "--force"), 0)
    archive = "samples_12x8x8x1.npz"
    assert (samples / "stopped" / archive).read_bytes() == (samples / "whole" / archive).read_bytes()
    assert_sound(bench)


@dataclass(frozen=True, kw_only=True)
class SignalInProgress:
    """A process signals itself once, as it tells that so much of its work is done; work: "" is any."""

    done: int
    signal_number: int
    work: str = ""

    def arm(self) -> None:
        """Lay the trap."""
        from diffcli.console.progress import WorkProgress

        show, sent = WorkProgress.__call__, []

        def shown(progress, done, total):
            show(progress, done, total)
            if done >= self.done and self.work in ("", progress._verb) and not sent:
                sent.append(os.kill(os.getpid(), self.signal_number))

        WorkProgress.__call__ = shown


@pytest.mark.parametrize(("number", "code"), SIGNALS.items())
def test_eval_keeps_its_finished_batches(number, code, bench):
    line = ("eval", "run-1", "--nll", "--num", "8", "--batch-size", "4", "--chain", "20", "--device", "cpu")
    # of 160 image steps, in the second batch
    stopped = fork(bench, *line, moment=SignalInProgress(done=100, signal_number=number))
    assert_ended(stopped, code, "stopping", "stopped with 1 of 2 batches done", "same command goes on")
    (kept,) = (bench.run() / "evals").rglob("batch-*.bin")
    assert not list((bench.run() / "evals").glob("*.json"))
    assert_ended(fork(bench, *line), 0)
    assert not kept.parent.exists()
    assert len(list((bench.run() / "evals").glob("*.json"))) == 1
    assert_sound(bench)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Images that take a second to prepare, in the space of one."""
    directory = tmp_path_factory.mktemp("many") / "photos"
    directory.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(directory / "0_0.jpg")
    for number in range(1, PHOTOS):
        (directory / f"{number % 3}_{number}.jpg").hardlink_to(directory / "0_0.jpg")
    return directory


@pytest.fixture(scope="module")
def archive(photos) -> Path:
    """The same images in a tar.gz."""
    path = photos.with_suffix(".tar.gz")
    with gzip.open(path, "w", compresslevel=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for photo in photos.iterdir():
            header = tarfile.TarInfo(photo.name)
            header.size = photo.stat().st_size
            with photo.open("rb") as file:
                tar.addfile(header, file)
    return path


@pytest.mark.parametrize(("number", "code"), SIGNALS.items())
@pytest.mark.parametrize("source", ["photos", "archive"])
def test_prepare_keeps_what_is_done_and_goes_on_to_the_same_bytes(source, number, code, bench, request):
    path = request.getfixturevalue(source)
    line = ("prepare", "folder", "--source", str(path), "--size", "8")
    data = bench.directory / "data"
    moment = SignalInProgress(done=20, signal_number=number, work="preparing")
    stopped = fork(bench, *line, "--name", "made", moment=moment)
    phrases = ("stopping; what is done is kept", f"of {PHOTOS} images", "the same command goes on")
    assert_ended(stopped, code, *phrases)
    assert [path.name for path in (data / "made").iterdir() if not path.name.startswith(".")] == []
    assert_ended(fork(bench, *line, "--name", "made"), 0, "going on after", f"{PHOTOS} images")
    PreparedDataset(data / "made" / "train").require_intact()
    assert_ended(fork(bench, *line, "--name", "whole"), 0)
    images, whole = ((data / name / "train" / "images.npy").read_bytes() for name in ("made", "whole"))
    assert images == whole
    assert_sound(bench)


@pytest.mark.parametrize(("number", "code"), SIGNALS.items())
def test_prepare_ends_within_its_first_look_at_an_archive(number, code, bench, archive):
    line = ("prepare", "folder", "--source", str(archive), "--size", "8", "--name", "made")
    moment = SignalInProgress(done=1, signal_number=number, work="reading the archive")
    stopped = fork(bench, *line, moment=moment)
    assert_ended(stopped, code, "stopped while reading the archive", "the same command")
    assert not list((bench.directory / "data").glob("made*"))
    assert_sound(bench)


# ---- twice ----


@dataclass(frozen=True, kw_only=True)
class SlowDisk:
    """The files of a checkpoint after this step take so long to reach the disk."""

    step: int
    seconds: float

    def arm(self) -> None:
        """Lay the trap."""
        from diffcli import durable

        commit = durable.commit_directory

        def commit_directory(staging, final, **settings):
            if final.name == f"step-{self.step:06d}":
                time.sleep(self.seconds)
            commit(staging, final, **settings)

        durable.commit_directory = commit_directory


def test_two_interrupts_while_a_checkpoint_is_written_leave_the_one_before(bench, trained):
    run = bench.run(2)
    options = ("--set", "training.save_every=2")
    slow = fork(bench, *NEW, *options, moment=SlowDisk(step=4, seconds=60))
    staging = run / "checkpoints" / ".staging-step-000004"
    wait_until((staging / "manifest.json").exists, slow)
    slow.send(SIGINT)
    wait_until(lambda: status(run)["state"] == "stopping", slow)
    asked_at = time.monotonic()
    slow.send(SIGINT)
    assert_ended(slow, 130, "leaving at once")
    assert time.monotonic() - asked_at < 2
    assert staging.exists()
    assert checkpoints.newest_good(run / "checkpoints").step == 2
    assert (status(run)["state"], status(run)["exit_code"]) == ("stopped", 130)
    assert_ended(fork(bench, "train", "--resume", "run-2"), 0, "goes on from step 2")
    assert_same_training(run, trained.run(), step=6)
    assert_sound(bench)


def test_two_interrupts_at_any_moment_of_continuous_saving_cost_no_checkpoint(bench):
    run, arguments = bench.run(2), (*NEW, *FOREVER, "--set", "training.save_every=1")
    for attempt in range(4):
        before = newest(run)
        trainer = fork(bench, *arguments)
        wait_until(lambda: newest(run) > before + 1, trainer)  # noqa: B023 - called at once
        trainer.send(SIGINT)
        time.sleep(0.005 * attempt)
        with contextlib.suppress(ProcessLookupError):
            trainer.send(SIGINT)
        assert_ended(trainer, 130)
        assert checkpoints.newest_good(run / "checkpoints").step == newest(run)
        arguments = ("train", "--resume", "run-2", "--device", "cpu")
    assert_ended(fork(bench, "train", "--resume", "run-2", "--steps", str(newest(run) + 1)), 0)
    assert_sound(bench)


def newest(run: Path) -> int:
    return max(checkpoints.steps_present(run / "checkpoints"), default=0)


def test_two_interrupts_of_sample_leave_at_once(bench):
    line = ("sample", "run-1", "--num", "12", "--batch-size", "4", "--steps", "25", "--device", "cpu")
    running = fork(bench, *line)
    wait_until(lambda: list((bench.run() / "samples").glob(".*.parts/batch-*.bin")), running)
    interrupt_twice(running)
    assert_ended(fork(bench, *line), 0)
    assert_sound(bench)


def test_two_interrupts_of_prepare_leave_at_once(bench, photos):
    line = ("prepare", "folder", str(photos), "--size", "8")
    running = fork(bench, *line)
    wait_until((bench.directory / "data" / "photos_8" / ".train.staging" / "images.npy").exists, running)
    interrupt_twice(running)
    # what was left half-made is in nobody's way
    assert_ended(fork(bench, *line), 0, f"{PHOTOS} images")
    assert_sound(bench)


def interrupt_twice(process: Started) -> None:
    process.send(SIGINT)
    # two signals at once would be one
    wait_until(lambda: "stopping" in process.errors)
    with contextlib.suppress(ProcessLookupError):
        process.send(SIGINT)
    asked_at = time.monotonic()
    assert_ended(process, 130)
    assert time.monotonic() - asked_at < 2


def test_a_resume_is_stopped_like_the_first_attempt(bench):
    resumed = fork(bench, *RESUME, "--steps", "20", moment=SlowSteps(seconds=0.1))
    wait_until(lambda: newest(bench.run()) >= 8, resumed)
    resumed.send(SIGTERM)
    assert_ended(resumed, 143, "diffcli train --resume run-1")
    said = status(bench.run())
    assert (said["state"], said["step"]) == ("stopped", newest(bench.run()))
    assert_ended(fork(bench, *RESUME), 0, f"goes on from step {said['step']}")
    assert_sound(bench)


def test_a_signal_while_the_stop_is_told_changes_nothing(bench):
    line = ("sample", "run-1", "--num", "12", "--batch-size", "4", "--steps", "25", "--device", "cpu")
    stopped = fork(bench, *line, moment=SignalledAsItStops())
    assert_ended(stopped, 143, "stopped with", "same command goes on")
    assert_ended(fork(bench, *line), 0)
    assert_sound(bench)


@dataclass(frozen=True, kw_only=True)
class SignalledAsItStops:
    """A process gets SIGTERM after its first batch, and both signals again as it says how it stopped."""

    def arm(self) -> None:
        """Lay the trap."""
        from diffcli.cli import handler

        SignalInProgress(done=4, signal_number=SIGTERM).arm()
        print_error = handler.print_error

        def printed(*arguments, **settings):
            for number in SIGNALS:
                os.kill(os.getpid(), number)
            print_error(*arguments, **settings)

        handler.print_error = printed
