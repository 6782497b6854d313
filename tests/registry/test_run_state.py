"""What readers make of a status whose writer may be gone, suspended, elsewhere, or with a wrong clock."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from diffcli.registry.create import NewRun, create_run
from diffcli.registry.json_records import write_record
from diffcli.registry.lock import acquire_lock
from diffcli.registry.paths import RunPaths
from diffcli.registry.process import ProcessIdentity, living_process, this_process
from diffcli.registry.state import STALE_AFTER_SECONDS, Observation, observe
from diffcli.registry.status import STATUS_SCHEMA, Heartbeat, RunStatus, read_status, write_status

_TRAIN = """
import dataclasses, sys
from pathlib import Path
from diffcli.registry.lock import acquire_lock
from diffcli.registry.paths import RunPaths
from diffcli.registry.process import this_process
from diffcli.registry.status import read_status, write_status
run = RunPaths(Path(sys.argv[1]))
lock = acquire_lock(run)
write_status(run, dataclasses.replace(read_status(run), state="running", step=5, process=this_process()))
print("training", flush=True)
sys.stdin.readline()
write_status(run, dataclasses.replace(read_status(run), state="completed", exit_code=0))
lock.release()
"""
_DAY = timedelta(days=1)


@pytest.fixture
def run(home: Path, spec: NewRun) -> RunPaths:
    return create_run(home, spec).paths


def _observed(run: RunPaths) -> Observation:
    return observe(run, read_status(run))


def _training(run: RunPaths, spawn):
    child = spawn(_TRAIN, run.directory)
    assert child.stdout.readline() == "training\n"
    return child


def _store(run: RunPaths, **changes: object) -> RunStatus:
    """A status as it stands, heartbeat and all."""
    status = dataclasses.replace(read_status(run), **{"state": "running", **changes})
    write_record(run.status, status, schema=STATUS_SCHEMA)
    return status


def _elsewhere() -> ProcessIdentity:
    return ProcessIdentity(host="another-host", boot="another-boot", pid=1, started="1")


def test_a_run_goes_from_created_over_running_to_completed(run: RunPaths, spawn) -> None:
    assert _observed(run).state == "created"
    child = _training(run, spawn)
    assert _observed(run).state == "running"
    child.communicate("\n")
    assert _observed(run).state == "completed"


def test_a_killed_process_leaves_a_crashed_run_and_the_status_file_as_it_was(run: RunPaths, spawn) -> None:
    child = _training(run, spawn)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = run.status.read_bytes()
    assert _observed(run) == Observation(state="crashed", reason=f"process {child.pid} is gone")
    assert run.status.read_bytes() == before


def test_a_process_that_is_dead_and_not_yet_waited_for_is_gone(run: RunPaths, spawn) -> None:
    child = _training(run, spawn)
    os.kill(child.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while living_process(child.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _observed(run).state == "crashed"


def test_a_suspended_process_is_stale_until_it_goes_on(run: RunPaths, spawn) -> None:
    child = _training(run, spawn)
    child.send_signal(signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    assert _observed(run) == Observation(state="stale", reason=f"process {child.pid} is suspended")
    child.send_signal(signal.SIGCONT)
    os.waitpid(child.pid, os.WCONTINUED)
    assert _observed(run).state == "running"


def test_a_pid_that_was_given_again_is_not_the_trainer(run: RunPaths) -> None:
    _store(run, process=dataclasses.replace(this_process(), started="1"))
    observed = _observed(run)
    assert observed.state == "crashed"
    assert "another one" in observed.reason


def test_a_restart_of_the_machine_ends_a_run_whatever_its_pid_is_now(run: RunPaths) -> None:
    _store(run, process=dataclasses.replace(this_process(), boot="an earlier boot"))
    observed = _observed(run)
    assert observed.state == "crashed"
    assert "restarted" in observed.reason


def test_a_container_of_the_same_machine_shares_its_locks(run: RunPaths) -> None:
    gone = dataclasses.replace(this_process(), host="some-container", started="1")
    _store(run, process=gone)
    assert _observed(run).state == "crashed"


def test_a_living_process_whose_lock_file_was_deleted_still_runs(run: RunPaths) -> None:
    _store(run, process=this_process(), heartbeat=Heartbeat(counter=9, host_seconds=time.monotonic()))
    assert _observed(run).state == "running"


@pytest.mark.parametrize("offset", [-_DAY, _DAY])
def test_a_clock_a_day_off_changes_nothing_on_this_machine(run: RunPaths, offset: timedelta) -> None:
    with acquire_lock(run):
        status = _store(
            run,
            process=this_process(),
            updated_at=datetime.now(UTC) + offset,
            heartbeat=Heartbeat(counter=9, host_seconds=time.monotonic()),
        )
        moment = status.updated_at.timestamp()
        os.utime(run.status, (moment, moment))
        assert _observed(run).state == "running"


def test_a_held_lock_without_heartbeats_is_stale(run: RunPaths) -> None:
    with acquire_lock(run):
        silent = Heartbeat(counter=9, host_seconds=time.monotonic() - STALE_AFTER_SECONDS - 1)
        _store(run, process=this_process(), heartbeat=silent)
        assert _observed(run).state == "stale"


def test_a_process_that_locked_a_crashed_run_and_has_not_said_so_yet_is_running(run: RunPaths) -> None:
    _store(run, process=dataclasses.replace(this_process(), started="1"))
    with acquire_lock(run):
        assert _observed(run).state == "running"


def test_another_host_is_believed_while_its_heart_beats(run: RunPaths) -> None:
    _store(run, process=_elsewhere(), updated_at=datetime.now(UTC))
    assert _observed(run).state == "running"


@pytest.mark.parametrize("offset", [-_DAY, _DAY])
def test_another_host_may_have_its_clock_a_day_off(run: RunPaths, offset: timedelta) -> None:
    _store(run, process=_elsewhere(), updated_at=datetime.now(UTC) + offset)
    assert _observed(run).state == "running"


def test_another_host_without_heartbeats_is_stale_and_not_called_crashed(run: RunPaths) -> None:
    silent = datetime.now(UTC) - timedelta(seconds=STALE_AFTER_SECONDS + 60)
    _store(run, process=_elsewhere(), updated_at=silent)
    os.utime(run.status, (silent.timestamp(), silent.timestamp()))
    observed = _observed(run)
    assert observed.state == "stale"
    assert "another-host" in observed.reason


@pytest.mark.parametrize("state", ["created", "completed", "stopped", "failed", "diverged"])
def test_a_state_at_rest_is_believed(run: RunPaths, state: str) -> None:
    _store(run, state=state, reason="why", process=_elsewhere())
    assert _observed(run) == Observation(state=state, reason="why")


def test_a_run_that_ended_while_it_was_looked_at_did_not_crash(run: RunPaths) -> None:
    running = _store(run, process=dataclasses.replace(this_process(), started="1"))
    write_status(run, dataclasses.replace(running, state="completed", exit_code=0))
    assert observe(run, running).state == "completed"


def test_each_write_is_one_more_heartbeat(run: RunPaths) -> None:
    first = write_status(run, read_status(run))
    second = write_status(run, first)
    assert second.heartbeat.counter == first.heartbeat.counter + 1
    assert second.heartbeat.host_seconds >= first.heartbeat.host_seconds
    assert read_status(run).heartbeat == second.heartbeat
