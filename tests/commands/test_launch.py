"""`train --procs` and `--gpus`: one command that starts, watches and outlives its ranks, or does not."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGSTOP, SIGTERM

import pytest

from diffcli.cli.app import run_app
from diffcli.cli.handler import run as run_in_this_process
from diffcli.commands.launch import training_exit_code
from diffcli.commands.rank_watch import RankWatch, Signals
from diffcli.registry.events import read_events
from diffcli.registry.paths import RunPaths
from diffcli.registry.process import host_name, living_process
from diffcli.registry.run_record import attempt_numbers
from diffcli.training import checkpoints
from diffcli_process import ended, shell_environment
from runs_in_processes import (
    NEW,
    RESUME,
    assert_same_training,
    attempts,
    checkpoint,
    fork,
    leftovers,
    make_bench,
    ranks_of,
    start,
    status,
    wait_until,
)

TWO = ("--procs", "2")
STEPS = 60
# long enough to be stopped many times, with steps that are all overhead
LONG = (
    *("--steps", str(STEPS), "--set", "training.lr_anneal_steps=0", "--set", "training.batch_size=2"),
    *("--set", "training.log_every=20"),
)
ENDLESS = ("--steps", "100000", "--set", "training.lr_anneal_steps=0")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A bench with one run of two ranks, launched as it is where diffcli is installed."""
    bench = make_bench(tmp_path_factory.mktemp("uninterrupted"))
    # a working directory may hold anything, and only `python -m` looks for modules there
    (bench.directory / "queue.py").write_text("raise SystemExit('imported a file of the user')")
    command = [str(Path(sys.executable).with_name("diffcli")), *NEW, *TWO, *LONG]
    done = ended(
        subprocess.run(
            command, cwd=bench.directory, env=shell_environment(), capture_output=True, check=False
        )
    )
    assert done.status == 0, done.err
    assert done.out.startswith(f"run-1\tcompleted\tstep {STEPS}/{STEPS}\tloss ")
    assert "training run-1 on cpu in 2 processes" in done.err
    assert done.err.count("training run-1") == 1
    assert json.loads((bench.run() / "run.json").read_text())["command_line"] == command
    assert [attempt["world_size"] for attempt in attempts(bench.run())] == [2]
    return bench


@pytest.fixture(scope="module")
def survivor(tmp_path_factory):
    """A bench whose one run is stopped in every way there is, and always goes on."""
    return make_bench(tmp_path_factory.mktemp("survivor"))


class Terminal:
    """A command in the foreground of a terminal of its own, on which no background process may write."""

    def __init__(self, bench, *arguments):
        self.pid, self._controller = pty.fork()
        if self.pid == 0:
            os.chdir(bench.directory)
            subprocess.run(["stty", "tostop"], check=True)
            command = [sys.executable, "-m", "diffcli", *arguments]
            os.execve(command[0], command, shell_environment(COLUMNS="100", LINES="30"))
        self.errors = ""
        self._hung_up = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        # Linux says EIO when the last process has closed the terminal
        with contextlib.suppress(OSError):
            while not self._hung_up.is_set():
                if select.select([self._controller], [], [], 0.05)[0]:
                    self.errors += os.read(self._controller, 65536).decode(errors="replace")

    def running(self):
        return living_process(self.pid) is not None

    def exit_code(self):
        _, code = os.waitpid(self.pid, 0)
        self._reader.join(timeout=10)
        return os.waitstatus_to_exitcode(code)

    def type(self, keys):
        os.write(self._controller, keys)

    def hang_up(self):
        """Break the connection: the system tells the command, and refuses what others write."""
        self._hung_up.set()
        self._reader.join()
        os.close(self._controller)


def start_or_go_on(bench, how=start):
    return how(bench, *(RESUME if bench.run().exists() else (*NEW, *LONG)), *TWO)


def launched(bench, how=start):
    """A launch that has started the run, or gone on with it, and saved since; and its ranks."""
    before = len(attempt_numbers(RunPaths(bench.run())))
    launcher = start_or_go_on(bench, how)
    wait_until(lambda: len(attempt_numbers(RunPaths(bench.run()))) > before, launcher)
    attempt = attempts(bench.run())[-1]
    assert attempt["world_size"] == 2
    wait_until(lambda: checkpoints.steps_present(saved(bench))[-1:] > (attempt["first_step"],), launcher)
    ranks = ranks_of(launcher)
    assert sorted(ranks) == [0, 1]
    assert attempt["pid"] == ranks[0]
    # a launcher waits for days, and needs no more than that takes
    assert "libtorch" not in Path(f"/proc/{launcher.pid}/maps").read_text()
    return launcher, ranks


def saved(bench):
    return bench.run() / "checkpoints"


def are_gone(ranks):
    return all(living_process(pid) is None for pid in ranks.values())


def assert_gone(ranks, *, within_seconds):
    deadline = time.monotonic() + within_seconds
    while not are_gone(ranks):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def last_event(bench):
    return read_events(bench.run() / "events.jsonl")[-1]


def assert_stopped_and_saved(bench, *, exit_code):
    said = status(bench.run())
    assert (said["state"], said["exit_code"]) == ("stopped", exit_code)
    assert checkpoints.newest_good(saved(bench)).step == said["step"]
    assert leftovers(bench.run()) == []


def test_a_terminate_reaches_all_ranks_and_saves(survivor):
    launcher, ranks = launched(survivor)
    launcher.send(SIGTERM)
    assert launcher.exit_code() == 143
    assert are_gone(ranks)
    assert_stopped_and_saved(survivor, exit_code=143)
    assert launcher.errors.count("was stopped after step") == 1


def test_ctrl_c_on_a_terminal_arrives_once_and_the_first_rank_draws(survivor):
    launcher, ranks = launched(survivor, Terminal)
    launcher.type(b"\x03")
    assert launcher.exit_code() == 130
    assert are_gone(ranks)
    assert_stopped_and_saved(survivor, exit_code=130)
    assert launcher.errors.count("stopping after this step, then saving") == 1
    assert launcher.errors.count("was stopped after step") == 1
    assert "leaving at once" not in launcher.errors
    # the bar, drawn over and over
    assert launcher.errors.count("━") > 10


@pytest.mark.slow
def test_ranks_whose_terminal_hung_up_save_and_end(survivor):
    launcher, ranks = launched(survivor, Terminal)
    launcher.hang_up()
    launcher.exit_code()
    assert_gone(ranks, within_seconds=20)
    assert_stopped_and_saved(survivor, exit_code=143)


def test_ranks_whose_launcher_was_killed_save_and_end(survivor):
    launcher, ranks = launched(survivor)
    launcher.send(SIGKILL)
    assert launcher.exit_code() == -SIGKILL
    assert_gone(ranks, within_seconds=20)
    assert_stopped_and_saved(survivor, exit_code=143)


def test_the_launcher_says_for_the_first_rank_how_it_was_killed(survivor):
    launcher, ranks = launched(survivor)
    os.kill(ranks[0], SIGKILL)
    assert launcher.exit_code() == 1
    assert are_gone(ranks)
    reason = f"rank 0 (process {ranks[0]}) was killed by signal 9 (SIGKILL)"
    assert f"error: {reason}" in launcher.errors
    assert "go on with: diffcli train --resume run-1" in launcher.errors
    said = status(survivor.run())
    assert (said["state"], said["exit_code"], said["reason"]) == ("failed", 1, reason)
    event = last_event(survivor)
    assert (event.kind, event.message) == ("failed", reason)
    assert event.attempt == len(attempts(survivor.run()))


def test_the_launcher_names_another_killed_rank_and_the_first_says_that_it_failed(survivor):
    launcher, ranks = launched(survivor)
    os.kill(ranks[1], SIGKILL)
    assert launcher.exit_code() == 1
    assert are_gone(ranks)
    reason = f"rank 1 (process {ranks[1]}) was killed by signal 9 (SIGKILL)"
    assert f"error: {reason}" in launcher.errors
    said = status(survivor.run())
    assert (said["state"], said["exit_code"]) == ("failed", 1)
    assert "another process of this training" in said["reason"]
    assert last_event(survivor).message == reason


def test_what_survived_all_that_is_bitwise_the_uninterrupted_run(survivor, uninterrupted):
    resumed = start_or_go_on(survivor).succeeds()
    assert "note:" not in resumed.errors
    assert {attempt["world_size"] for attempt in attempts(survivor.run())} == {2}
    assert_same_training(survivor.run(), uninterrupted.run(), step=STEPS)


def test_a_second_trainer_is_refused_and_two_interrupts_end_even_a_rank_that_hangs(bench):
    launcher = start(bench, *NEW, *ENDLESS, *TWO)
    wait_until(lambda: checkpoint(bench.run(), 4).exists(), launcher)
    ranks = ranks_of(launcher)
    second = start(bench, *RESUME, *TWO)
    assert second.exit_code() == 4
    assert second.errors.count(f"run-1 is in use by {ranks[0]}@{host_name()}") == 1
    os.kill(ranks[1], SIGSTOP)
    launcher.send(SIGINT)
    wait_until(lambda: "stopping after this step" in launcher.errors, launcher)
    asked = time.monotonic()
    launcher.send(SIGINT)
    assert launcher.exit_code() == 130
    assert time.monotonic() - asked < 2
    assert are_gone(ranks)
    said = status(bench.run())
    assert (said["state"], said["exit_code"]) == ("stopped", 130)
    assert checkpoints.newest_good(saved(bench)).step >= 4


def test_an_error_of_all_ranks_is_told_once_and_keeps_its_exit_code(bench):
    wrong = start(bench, *NEW, *TWO, "--set", "training.lr=-1")
    missing = start(bench, *RESUME, *TWO)
    assert (wrong.exit_code(), missing.exit_code()) == (2, 3)
    assert wrong.errors.count("training.lr = -1") == 1
    assert missing.errors.count("there is no run 'run-1'") == 1
    assert not bench.runs.exists()


REFUSED = {
    "more GPUs than there are": (["--gpus", "8"], "--gpus 8 asks for more GPUs than can be used here: 0"),
    "one GPU where there is none": (["--gpus", "1"], "no cuda device"),
    "both": (["--gpus", "1", "--procs", "1"], "--gpus and --procs exclude each other"),
    "GPUs on the CPU": (["--gpus", "2", "--device", "cpu"], "--gpus computes on cuda, and --device is cpu"),
    "processes on a GPU": (["--procs", "2", "--device", "cuda"], "--procs computes on cpu"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_launched_is_refused_and_never_becomes_something_else(
    case, bench, monkeypatch, capsys
):
    monkeypatch.chdir(bench.directory)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    arguments, told = REFUSED[case]
    assert run_in_this_process(run_app, ["train", "--preset", "./tiny.toml", *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not bench.runs.exists()


def test_a_rank_of_another_launcher_launches_nothing(bench, monkeypatch, capsys):
    monkeypatch.chdir(bench.directory)
    monkeypatch.setenv("RANK", "0")
    assert run_in_this_process(run_app, [*NEW, *TWO]) == 2
    assert "this is rank 0 of another launcher" in capsys.readouterr().err


def test_one_process_is_this_process(bench):
    trained = fork(bench, *NEW, "--procs", "1")
    trained.succeeds()
    assert [attempt["pid"] for attempt in attempts(bench.run())] == [trained.pid]


# ---- ranks that hang ----

DEAF = """
import signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("ready", flush=True)
time.sleep(60)
"""


OBEDIENT = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
print("ready", flush=True)
time.sleep(60)
"""


def python(code, **options):
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, **options)


def test_a_rank_that_leaves_because_it_was_told_to_does_not_speak_for_the_training():
    with Signals() as signals:
        obedient = python(OBEDIENT)
        assert obedient.stdout.readline() == b"ready\n"
        failing = python("raise SystemExit(3)")
        ends = RankWatch([obedient, failing], grace_seconds=0.3).wait(signals)
    obedient.stdout.close()
    failing.stdout.close()
    assert [(end.rank, end.exit_code, end.forced) for end in ends] == [(1, 3, False), (0, 143, True)]
    assert training_exit_code(ends, killed=False, abandoned=False) == 3


def test_ranks_that_do_not_notice_are_terminated_and_at_last_killed():
    with Signals() as signals:
        deaf = python(DEAF)
        assert deaf.stdout.readline() == b"ready\n"
        slow = python("import time; time.sleep(60)")
        failing = python("raise SystemExit(6)")
        ends = RankWatch([deaf, slow, failing], grace_seconds=0.3).wait(signals)
    for process in (deaf, slow, failing):
        process.stdout.close()
    assert [(end.rank, end.exit_code, end.signal_number, end.forced) for end in ends] == [
        (2, 6, 0, False),
        (1, 143, SIGTERM, True),
        (0, 137, SIGKILL, True),
    ]
    assert str(ends[0]) == f"rank 2 (process {failing.pid}) ended with exit code 6"


HANGING = """
import os, signal, time
from diffcli.commands.launched_rank import join_launcher
assert join_launcher(last_seconds=0.3)
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"told\\n"))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_rank_that_hangs_does_not_outlive_its_launcher_for_long():
    lifeline, held = os.pipe()
    rank = python(HANGING, pass_fds=[lifeline], env=shell_environment(DIFFCLI_LIFELINE=str(lifeline)))
    os.close(lifeline)
    assert rank.stdout.readline() == b"ready\n"
    os.close(held)
    assert rank.communicate(timeout=20)[0] == b"told\n"
    assert rank.returncode == 143


def test_a_stop_before_the_training_begins_ends_a_rank_at_once():
    lifeline, held = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, [SIGINT])
    try:
        rank = python(HANGING, pass_fds=[lifeline], env=shell_environment(DIFFCLI_LIFELINE=str(lifeline)))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [SIGINT])
    # in the midst of the interpreter's start
    rank.send_signal(SIGINT)
    assert rank.communicate(timeout=20) == (b"", None)
    assert rank.returncode == 130
    os.close(lifeline)
    os.close(held)
