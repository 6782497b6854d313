"""Lists of runs: newest first, every broken one told, and nothing read that is not shown."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from diffcli.errors import CorruptError, MissingError, StorageError
from diffcli.registry.create import NewRun, create_run, open_run
from diffcli.registry.listing import list_runs
from diffcli.registry.resolve import resolve
from diffcli.registry.run_record import Annotations, write_annotations
from diffcli.registry.size import size_on_disk
from diffcli.registry.trash import move_to_trash


@pytest.fixture
def ten_runs(home: Path, spec: NewRun) -> Path:
    for number in range(1, 11):
        create_run(home, replace(spec, name=f"trial-{number}"))
    return home


def test_the_newest_come_first_by_number(ten_runs: Path) -> None:
    listing = list_runs(ten_runs, limit=None, sizes=False)
    assert [row.id for row in listing.runs] == [f"run-{number}" for number in range(10, 0, -1)]
    assert [row.name for row in listing.runs[:2]] == ["trial-10", "trial-9"]
    assert {row.state for row in listing.runs} == {"created"}
    assert {row.size_bytes for row in listing.runs} == {None}


def test_no_directory_is_an_empty_list(home: Path) -> None:
    assert list_runs(home, limit=20, sizes=True).runs == ()
    assert not home.exists()


def test_only_what_is_shown_is_read(ten_runs: Path) -> None:
    for number in range(1, 8):
        shutil.rmtree(ten_runs / f"run-{number}")
        (ten_runs / f"run-{number}").symlink_to("/nowhere")
    listing = list_runs(ten_runs, limit=3, sizes=True)
    assert [row.state for row in listing.runs] == ["created"] * 3
    assert listing.total_runs == 10


def test_the_size_is_that_of_all_files(ten_runs: Path) -> None:
    before = size_on_disk(ten_runs / "run-10")
    (ten_runs / "run-10" / "samples" / "a").mkdir(parents=True)
    (ten_runs / "run-10" / "samples" / "a" / "x.npz").write_bytes(b"x" * 12345)
    row = list_runs(ten_runs, limit=1, sizes=True).runs[0]
    assert row.size_bytes == before + 12345


def test_broken_runs_are_rows_and_other_files_are_not(ten_runs: Path) -> None:
    (ten_runs / "run-1" / "status.json").write_text('{"schema": 1, "state"')
    (ten_runs / "run-2" / "run.json").unlink()
    (ten_runs / "run-3" / "annotations.json").write_text("[]")
    shutil.rmtree(ten_runs / "run-4")
    (ten_runs / "run-4").write_text("a file")
    (ten_runs / "run-5" / "run.json").unlink()
    (ten_runs / "run-5" / "run.json").mkdir()
    for stray in ("notes.txt", "run-x", "run-007", ".hidden"):
        (ten_runs / stray).write_text("")
    rows = {row.id: row for row in list_runs(ten_runs, limit=None, sizes=True).runs}
    assert len(rows) == 10
    unreadable = {name for name, row in rows.items() if row.state == "unreadable"}
    assert unreadable == {"run-1", "run-2", "run-3", "run-4", "run-5"}
    assert "status.json" in rows["run-1"].reason
    assert "missing" in rows["run-2"].reason
    assert rows["run-10"].name == "trial-10"
    assert rows["run-1"].name is None
    assert rows["run-4"].size_bytes == len("a file")


def test_a_file_in_place_of_the_runs_directory_is_named(home: Path) -> None:
    home.write_text("")
    with pytest.raises(StorageError, match="cannot read"):
        list_runs(home, limit=None, sizes=False)


def test_a_directory_that_cannot_be_written_is_listed(
    open_directory: Path, spec: NewRun, without_privileges
) -> None:
    create_run(open_directory, spec)
    open_directory.chmod(0o555)
    with without_privileges():
        rows = list_runs(open_directory, limit=20, sizes=True).runs
        assert [(row.id, row.state) for row in rows] == [("run-1", "created")]
        assert open_run(open_directory, "base").id == "run-1"


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("run-3", "run-3"),
        ("latest", "run-10"),
        ("trial-7", "run-7"),
        ("trial-1", "run-1"),
        ("trial-10", "run-10"),
    ],
)
def test_a_run_is_named_by_id_name_or_latest(ten_runs: Path, reference: str, found: str) -> None:
    assert resolve(ten_runs, reference).directory == ten_runs / found
    assert open_run(ten_runs, reference).id == found


def test_a_run_is_named_by_the_beginning_of_its_name_as_it_is_now(ten_runs: Path) -> None:
    write_annotations(resolve(ten_runs, "run-4"), Annotations(name="cosine-final"))
    assert resolve(ten_runs, "cos").directory == ten_runs / "run-4"
    with pytest.raises(MissingError):
        resolve(ten_runs, "trial-4")


def test_a_run_is_named_by_its_directory(ten_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_run(Path("elsewhere"), str(ten_runs / "run-2")).id == "run-2"
    assert open_run(Path("elsewhere"), f"{ten_runs}/run-2/").id == "run-2"
    monkeypatch.chdir(ten_runs / "run-2")
    assert open_run(Path("elsewhere"), ".").id == "run-2"
    assert open_run(Path("elsewhere"), "../run-3").id == "run-3"
    with pytest.raises(MissingError, match=r"is not a run"):
        open_run(ten_runs, "./nothing")


def test_an_ambiguous_name_tells_the_candidates(ten_runs: Path) -> None:
    with pytest.raises(MissingError, match="may mean 10 runs") as caught:
        resolve(ten_runs, "tri")
    assert "run-10 (trial-10)" in caught.value.where


@pytest.mark.parametrize(
    ("reference", "suggestion"),
    [("trail-7", "trial-7"), ("run-99", "run-9"), ("run_3", "run-3"), ("3", "run-3")],
)
def test_an_unknown_run_gets_suggestions(ten_runs: Path, reference: str, suggestion: str) -> None:
    with pytest.raises(MissingError) as caught:
        resolve(ten_runs, reference)
    assert caught.value.exit_code == 3
    assert suggestion in caught.value.remedy


def test_a_run_in_the_trash_is_pointed_out(ten_runs: Path) -> None:
    move_to_trash(ten_runs, [resolve(ten_runs, "run-3")])
    with pytest.raises(MissingError, match="in the trash") as caught:
        resolve(ten_runs, "run-3")
    assert "diffcli runs restore run-3" in caught.value.remedy


def test_without_runs_latest_tells_how_to_start_one(home: Path) -> None:
    with pytest.raises(MissingError, match="no runs") as caught:
        resolve(home, "latest")
    assert "diffcli train" in caught.value.remedy


def test_a_broken_run_can_be_named_and_not_opened(ten_runs: Path) -> None:
    (ten_runs / "run-10" / "run.json").write_text("")
    assert resolve(ten_runs, "latest").directory == ten_runs / "run-10"
    with pytest.raises(CorruptError, match=r"run\.json"):
        open_run(ten_runs, "latest")
