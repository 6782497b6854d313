"""One process at a time, told by name, and free again however that process ends."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from diffcli.errors import LockedError, MissingError, StorageError
from diffcli.registry.create import NewRun, create_run
from diffcli.registry.listing import list_runs
from diffcli.registry.lock import acquire_lock, lock_holder
from diffcli.registry.trash import move_to_trash

_HOLD = """
import sys
from pathlib import Path
from diffcli.registry.lock import acquire_lock
from diffcli.registry.paths import RunPaths
lock = acquire_lock(RunPaths(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("freed", flush=True)
sys.stdin.readline()
"""

# a holder whose forked worker, as a data loader has, outlives it
_HOLD_WITH_WORKER = """
import os, sys, time
from pathlib import Path
from diffcli.registry.lock import acquire_lock
from diffcli.registry.paths import RunPaths
lock = acquire_lock(RunPaths(Path(sys.argv[1])))
worker = os.fork()
if worker == 0:
    time.sleep(60)
    os._exit(0)
print(worker, flush=True)
time.sleep(60)
"""


def test_a_second_process_is_told_who_holds_the_lock(home: Path, spec: NewRun, spawn) -> None:
    run = create_run(home, spec).paths
    assert lock_holder(run) is None
    child = spawn(_HOLD, run.directory)
    assert child.stdout.readline() == "held\n"
    name = f"{child.pid}@{os.uname().nodename}"
    assert str(lock_holder(run)) == name
    with pytest.raises(LockedError, match=name) as caught:
        acquire_lock(run)
    assert caught.value.exit_code == 4
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline() == "freed\n"
    assert lock_holder(run) is None
    with acquire_lock(run):
        assert lock_holder(run) is not None
    assert lock_holder(run) is None


def test_looking_at_a_lock_takes_nothing_from_its_holder(home: Path, spec: NewRun, spawn) -> None:
    run = create_run(home, spec).paths
    with acquire_lock(run):
        # a list of runs opens lock files, and closing one would free the lock of its own process
        assert lock_holder(run) is not None
        list_runs(home, limit=None, sizes=True)
        with pytest.raises(LockedError, match=f"{os.getpid()}@"):
            acquire_lock(run)
        child = spawn(_HOLD, run.directory)
        assert child.stdout.readline() == ""
        assert child.wait() == 1


def test_a_killed_holder_frees_the_lock_also_with_a_worker_alive(home: Path, spec: NewRun, spawn) -> None:
    run = create_run(home, spec).paths
    child = spawn(_HOLD_WITH_WORKER, run.directory)
    worker = int(child.stdout.readline())
    try:
        assert lock_holder(run) is not None
        child.send_signal(signal.SIGKILL)
        child.wait()
        os.kill(worker, 0)
        acquire_lock(run).release()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_many_who_want_the_lock_have_it_one_after_the_other(home: Path, spec: NewRun, spawn) -> None:
    run = create_run(home, spec).paths
    children = [spawn(_HOLD, run.directory) for _ in range(4)]
    first_words = [child.stdout.readline() for child in children]
    assert sorted(first_words) == ["", "", "", "held\n"]


def test_a_run_that_went_away_cannot_be_locked(home: Path, spec: NewRun) -> None:
    run = create_run(home, spec).paths
    move_to_trash(home, [run])
    with pytest.raises(MissingError):
        acquire_lock(run)


def test_a_lock_file_that_cannot_be_opened_is_named(home: Path, spec: NewRun) -> None:
    run = create_run(home, spec).paths
    run.lock.unlink()
    run.lock.mkdir()
    with pytest.raises(StorageError, match=r"run\.lock"):
        acquire_lock(run)


def test_a_suspended_holder_keeps_its_lock(home: Path, spec: NewRun, spawn) -> None:
    run = create_run(home, spec).paths
    child = spawn(_HOLD, run.directory)
    child.stdout.readline()
    child.send_signal(signal.SIGSTOP)
    time.sleep(0.05)
    with pytest.raises(LockedError, match=f"{child.pid}@"):
        acquire_lock(run)
