"""Ids are unique among processes and never given again."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from diffcli.errors import StorageError, UsageError
from diffcli.registry.create import NewRun, create_run, open_run
from diffcli.registry.home import markers_of, staging_of
from diffcli.registry.ids import claim_number, number_of, run_id, run_numbers
from diffcli.registry.run_record import read_annotations, read_run_record
from diffcli.registry.status import read_status
from diffcli.registry.trash import move_to_trash, purge

# children start together when the gate closes; each makes two runs from the record of run-1
_FIFTY_AT_ONCE = """
import dataclasses, os, sys
from pathlib import Path
from diffcli.registry.create import NewRun, create_run, open_run

home = Path(sys.argv[1])
record = open_run(home, "run-1").record
names = [field.name for field in dataclasses.fields(NewRun) if field.name != "total_steps"]
spec = NewRun(total_steps=10, **{name: getattr(record, name) for name in names})
gate, opener = os.pipe()
children = []
for _ in range(50):
    child = os.fork()
    if child == 0:
        os.close(opener)
        os.read(gate, 1)
        made = [create_run(home, spec).id, create_run(home, spec).id]
        os.write(1, (" ".join(made) + "\\n").encode())
        os._exit(0)
    children.append(child)
os.close(opener)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def test_fifty_processes_at_once_get_distinct_ids(home: Path, spec: NewRun, spawn) -> None:
    create_run(home, spec)
    driver = spawn(_FIFTY_AT_ONCE, home)
    printed, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0
    ids = printed.split()
    assert len(ids) == 100
    assert len(set(ids)) == 100
    assert {number_of(name) for name in ids} == set(run_numbers(home)) - {1}
    for name in ids:
        assert open_run(home, name).record.id == name
    assert list(staging_of(home).iterdir()) == []


def test_a_new_run_is_whole(home: Path, spec: NewRun) -> None:
    run = create_run(home, spec)
    assert run.id == "run-1"
    assert run.paths.directory == home / "run-1"
    assert read_run_record(run.paths) == run.record
    assert run.record.config["training"]["batch_size"] == 128
    assert read_annotations(run.paths, run.record).name == "base"
    status = read_status(run.paths)
    assert (status.state, status.step, status.total_steps, status.process.pid) == (
        "created",
        0,
        2000,
        os.getpid(),
    )


def test_the_newest_id_is_not_given_again_after_a_purge(home: Path, spec: NewRun) -> None:
    create_run(home, spec)
    newest = create_run(home, spec)
    move_to_trash(home, [newest.paths])
    purge(home)
    assert not newest.paths.directory.exists()
    assert create_run(home, spec).id == "run-3"


def test_what_exists_counts_when_the_markers_were_deleted(home: Path, spec: NewRun) -> None:
    runs = [create_run(home, spec) for _ in range(3)]
    move_to_trash(home, [runs[2].paths])
    shutil.rmtree(markers_of(home))
    assert create_run(home, spec).id == "run-4"


def test_an_id_that_somebody_took_by_hand_is_passed_over(home: Path, spec: NewRun) -> None:
    create_run(home, spec)
    number = claim_number(home)
    shutil.rmtree(markers_of(home) / str(number))
    (home / run_id(number)).write_text("a file where a run should be")
    assert create_run(home, spec).id == run_id(number + 1)


@pytest.mark.parametrize(
    "name", ["run-0", "run-01", "run-", "run-1x", "Run-1", "run--1", "run-\u0661", "run-1\n"]
)
def test_other_names_are_no_ids(name: str) -> None:
    assert number_of(name) is None


def test_leftovers_of_a_killed_maker_are_cleared_and_those_of_a_living_one_kept(
    home: Path, spec: NewRun, spawn
) -> None:
    child = spawn("print(flush=True); input()")
    child.stdout.readline()
    host = os.uname().nodename
    dead, living = staging_of(home) / f"7@{child.pid}@{host}", staging_of(home) / f"8@{os.getpid()}@{host}"
    for leftover in (dead, living):
        leftover.mkdir(parents=True)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert create_run(home, spec).id == "run-9"
    assert not dead.exists()
    assert living.exists()


@pytest.mark.parametrize("name", ["latest", "run-7", "a/b", "-n", ".hidden", "a\tb", "x" * 101])
def test_a_name_that_could_mean_something_else_is_refused(home: Path, spec: NewRun, name: str) -> None:
    with pytest.raises(UsageError):
        create_run(home, replace(spec, name=name))
    assert not home.exists()


def test_a_directory_that_cannot_be_written_is_named(
    open_directory: Path, spec: NewRun, without_privileges
) -> None:
    open_directory.chmod(0o555)
    with without_privileges(), pytest.raises(StorageError) as caught:
        create_run(open_directory, spec)
    assert str(open_directory) in caught.value.what
    assert caught.value.remedy
    assert list(open_directory.iterdir()) == []


def test_a_file_in_place_of_the_runs_directory_is_named(home: Path, spec: NewRun) -> None:
    home.write_text("")
    with pytest.raises(StorageError, match=str(home)):
        create_run(home, spec)
