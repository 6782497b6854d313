"""Removed runs can be restored, used ones cannot be removed, purged ones are gone."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from diffcli.errors import LockedError, MissingError, StorageError, UsageError
from diffcli.registry.create import NewRun, create_run, open_run
from diffcli.registry.home import trash_of
from diffcli.registry.ids import run_numbers
from diffcli.registry.json_records import write_record
from diffcli.registry.lock import acquire_lock, lock_holder
from diffcli.registry.process import ProcessIdentity
from diffcli.registry.resolve import resolve
from diffcli.registry.status import STATUS_SCHEMA, read_status
from diffcli.registry.trash import move_to_trash, purge, restore, trash_contents


@pytest.fixture
def three_runs(home: Path, spec: NewRun) -> Path:
    for _ in range(3):
        create_run(home, spec)
    return home


def _content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "run.lock"}


def test_a_removed_run_comes_back_as_it_was(three_runs: Path) -> None:
    before = _content(three_runs / "run-2")
    move_to_trash(three_runs, [resolve(three_runs, "run-2")])
    assert run_numbers(three_runs) == [3, 1]
    assert trash_contents(three_runs).ids == ("run-2",)
    restored = restore(three_runs, "run-2")
    assert _content(restored.directory) == before
    assert open_run(three_runs, "run-2").id == "run-2"
    assert lock_holder(restored) is None
    assert trash_contents(three_runs).ids == ()


def test_a_run_in_use_is_not_removed_nor_any_other_named_with_it(three_runs: Path) -> None:
    runs = [resolve(three_runs, name) for name in ("run-1", "run-2")]
    with acquire_lock(runs[1]), pytest.raises(LockedError, match="run-2 is in use by"):
        move_to_trash(three_runs, runs)
    assert run_numbers(three_runs) == [3, 2, 1]
    move_to_trash(three_runs, runs)
    assert run_numbers(three_runs) == [3]


def test_a_run_that_another_host_trains_is_not_removed(three_runs: Path) -> None:
    run = resolve(three_runs, "run-1")
    elsewhere = ProcessIdentity(host="another-host", boot="b", pid=77, started="1")
    status = dataclasses.replace(
        read_status(run), state="running", process=elsewhere, updated_at=datetime.now(UTC)
    )
    write_record(run.status, status, schema=STATUS_SCHEMA)
    with pytest.raises(LockedError, match="77@another-host"):
        move_to_trash(three_runs, [run])


def test_broken_entries_can_be_removed_and_purged(three_runs: Path) -> None:
    (three_runs / "run-1" / "status.json").write_text("{")
    (three_runs / "run-2" / "run.json").unlink()
    (three_runs / "run-4").write_text("a file where a run should be")
    move_to_trash(three_runs, [resolve(three_runs, name) for name in ("run-1", "run-2", "run-4")])
    assert purge(three_runs).ids == ("run-4", "run-2", "run-1")
    assert list(trash_of(three_runs).iterdir()) == []
    assert run_numbers(three_runs) == [3]


def test_purge_tells_what_it_deleted_and_deletes_it(three_runs: Path) -> None:
    move_to_trash(three_runs, [resolve(three_runs, "run-1")])
    inside = trash_contents(three_runs)
    assert inside.size_bytes > 1000
    assert purge(three_runs) == inside
    assert trash_contents(three_runs).ids == ()
    with pytest.raises(MissingError):
        restore(three_runs, "run-1")


def test_an_interrupted_purge_cannot_be_restored_and_is_finished_later(three_runs: Path) -> None:
    move_to_trash(three_runs, [resolve(three_runs, "run-1")])
    (trash_of(three_runs) / "run-1").rename(trash_of(three_runs) / ".purging-run-1")
    with pytest.raises(MissingError):
        restore(three_runs, "run-1")
    purge(three_runs)
    assert list(trash_of(three_runs).iterdir()) == []


def test_purging_a_link_leaves_what_it_points_to(three_runs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "big-disk"
    (three_runs / "run-1").rename(elsewhere)
    (three_runs / "run-1").symlink_to(elsewhere)
    move_to_trash(three_runs, [resolve(three_runs, "run-1")])
    purge(three_runs)
    assert (elsewhere / "run.json").exists()


def test_a_place_that_is_taken_is_not_overwritten(three_runs: Path) -> None:
    move_to_trash(three_runs, [resolve(three_runs, "run-1")])
    (three_runs / "run-1").mkdir()
    with pytest.raises(UsageError, match="already"):
        restore(three_runs, "run-1")


def test_restore_suggests_what_the_trash_holds(three_runs: Path) -> None:
    move_to_trash(three_runs, [resolve(three_runs, "run-1")])
    with pytest.raises(MissingError) as caught:
        restore(three_runs, "rum-1")
    assert "run-1" in caught.value.remedy
    with pytest.raises(MissingError):
        restore(three_runs, "../run-2")


def test_runs_of_another_directory_are_refused(three_runs: Path, spec: NewRun, tmp_path: Path) -> None:
    other = create_run(tmp_path / "other", spec)
    with pytest.raises(UsageError, match="is no run of"):
        move_to_trash(three_runs, [other.paths])
    assert other.paths.directory.exists()


def test_a_directory_that_cannot_be_written_is_told(
    open_directory: Path, spec: NewRun, without_privileges
) -> None:
    run = create_run(open_directory, spec)
    open_directory.chmod(0o555)
    with without_privileges(), pytest.raises(StorageError):
        move_to_trash(open_directory, [run.paths])
    assert run.paths.record.exists()
