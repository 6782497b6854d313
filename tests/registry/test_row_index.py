"""The index of rows: long lists take it, and no state that it can be in shows a row that is not true."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffcli import __version__
from diffcli.records.runs import RunRow
from diffcli.registry.create import NewRun, create_run
from diffcli.registry.home import index_of
from diffcli.registry.ids import run_id, run_numbers
from diffcli.registry.listing import list_runs, row_of
from diffcli.registry.metrics import LoggedRow, append_metrics
from diffcli.registry.paths import RunPaths
from diffcli.registry.process import this_process
from diffcli.registry.row_index import INDEX_SCHEMA, KeptRow, file_facts, read_index, write_index
from diffcli.registry.status import read_status, write_status
from runs_on_disk import metrics

# enough for a list that takes the index, and writes it
_RUNS = 520
# longer than a tick of the coarsest file system's clock
_SETTLING_SECONDS = 2.1

_LISTS_AGAIN_AND_AGAIN = """
import sys
from pathlib import Path
from diffcli.registry.listing import list_runs
print("listing", flush=True)
before = 0
for _ in range(10):
    rows = list_runs(Path(sys.argv[1]), limit=None, sizes=False).runs
    assert sum(row.state == "completed" for row in rows) > 400
    (changing,) = (row for row in rows if row.id == "run-9")
    assert changing.state == "completed"
    assert changing.step >= before
    before = changing.step
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def settled_home(spec: NewRun) -> Iterator[Path]:
    """Runs that ended at step 2000, and whose files did not change lately; everybody may read them."""
    home = Path(tempfile.mkdtemp(prefix="diffcli-"))
    home.chmod(0o755)
    first = create_run(home, spec).paths
    append_metrics(first.metrics, LoggedRow(attempt=1, row=metrics(2000, loss=0.25)))
    status = read_status(first)
    write_status(first, dataclasses.replace(status, state="completed", step=2000, exit_code=0))
    for number in range(2, _RUNS + 1):
        shutil.copytree(first.directory, home / run_id(number))
    time.sleep(_SETTLING_SECONDS)
    yield home
    shutil.rmtree(home)


@pytest.fixture
def home(settled_home: Path) -> Path:
    """The same with a new index. What a test changes in it stays changed, so each takes runs of its own."""
    index_of(settled_home).unlink(missing_ok=True)
    _listed(settled_home)
    assert len(read_index(settled_home)) > _RUNS - 50
    return settled_home


def _listed(home: Path) -> list[RunRow]:
    """What a long list shows, but for the age."""
    return [_ageless(row) for row in list_runs(home, limit=None, sizes=False).runs]


def _truth(home: Path) -> list[RunRow]:
    """What the directories hold, each read by itself."""
    rows = (row_of(RunPaths(home / run_id(number)), sizes=False) for number in run_numbers(home))
    return [_ageless(row) for row in rows if row is not None]


def _ageless(row: RunRow) -> RunRow:
    return dataclasses.replace(row, age_seconds=None)


def _run(home: Path, number: int) -> RunPaths:
    return RunPaths(home / run_id(number))


def _row(home: Path, number: int) -> RunRow:
    (found,) = (row for row in _listed(home) if row.id == run_id(number))
    return found


def _replace_same_size(path: Path, before: bytes, after: bytes) -> None:
    """Another content of the same size and the same time, as a replacement within one tick gives it."""
    times = path.stat()
    assert len(before) == len(after)
    content = path.read_bytes()
    assert before in content
    beside = path.with_name("beside")
    beside.write_bytes(content.replace(before, after))
    beside.replace(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _write_over(path: Path, before: bytes, after: bytes) -> None:
    """The same into the file that is there, as an editor or a restored backup may do."""
    times = path.stat()
    path.write_bytes(path.read_bytes().replace(before, after))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_long_list_tells_what_each_run_tells(home: Path) -> None:
    assert _listed(home) == _truth(home)
    assert _row(home, 5).step == 2000
    ages = [row.age_seconds for row in list_runs(home, limit=None, sizes=False).runs]
    assert all(_SETTLING_SECONDS < age < 600 for age in ages)


def test_rows_come_from_the_index_as_long_as_no_file_changed(home: Path) -> None:
    kept = dict(read_index(home))
    kept[7] = KeptRow(facts=kept[7].facts, row=dataclasses.replace(kept[7].row, name="from the index"))
    write_index(home, kept)
    assert _row(home, 7).name == "from the index"
    os.utime(_run(home, 7).annotations)
    assert _row(home, 7).name == "base"


@pytest.mark.parametrize("change", [_replace_same_size, _write_over])
@pytest.mark.parametrize(
    ("offset", "file", "before", "after"),
    [
        (0, "status.json", b'"step": 2000', b'"step": 1999'),
        (1, "annotations.json", b'"base"', b'"cafe"'),
        (2, "run.json", b'"digits"', b'"giants"'),
        (3, "metrics.jsonl", b"0.25", b"0.75"),
        (4, "status.json", b'"schema": 1', b'"schema": 9'),
        (5, "run.json", b'"schema"', b'"schemo"'),
    ],
)
def test_a_change_within_one_tick_and_of_no_size_is_seen(
    home: Path, offset: int, file: str, before: bytes, after: bytes, change: Callable[..., None]
) -> None:
    number = 100 + 10 * offset + (change is _write_over)
    old = _row(home, number)
    change(home / run_id(number) / file, before, after)
    assert _row(home, number) != old
    assert _listed(home) == _truth(home)


@pytest.mark.parametrize("file", ["run.json", "status.json", "annotations.json", "metrics.jsonl"])
def test_a_file_that_goes_away_is_missed(home: Path, file: str) -> None:
    number = 200 + ["run.json", "status.json", "annotations.json", "metrics.jsonl"].index(file)
    (home / run_id(number) / file).unlink()
    assert _listed(home) == _truth(home)
    assert (_row(home, number).state == "unreadable") == (file in ("run.json", "status.json"))


def test_a_run_that_changed_just_now_is_not_kept(home: Path) -> None:
    write_status(_run(home, 210), dataclasses.replace(read_status(_run(home, 210)), step=1))
    index_of(home).unlink()
    assert _row(home, 210).step == 1
    # its file could change again within the same tick
    assert 210 not in read_index(home)
    assert 211 in read_index(home)


@pytest.mark.parametrize(("number", "offset"), [(214, -86_400), (215, 86_400)])
def test_files_stamped_by_a_clock_a_day_off_are_read_when_they_change(
    home: Path, number: int, offset: int
) -> None:
    status, moment = _run(home, number).status, time.time() + offset
    for step in (b"1999", b"1998"):
        content = status.read_bytes()
        status.write_bytes(content.replace(b'"step": 2000', b'"step": ' + step).replace(b"1999", step))
        os.utime(status, (moment, moment))
        index_of(home).unlink(missing_ok=True)
        for _ in range(2):
            assert _row(home, number).step == int(step)


def test_a_run_in_training_is_looked_at_each_time(home: Path) -> None:
    run = _run(home, 220)
    running = dataclasses.replace(read_status(run), state="running", process=this_process(), exit_code=None)
    write_status(run, running)
    assert _row(home, 220).state == "running"
    # its process ends without another word
    write_status(run, dataclasses.replace(running, process=dataclasses.replace(this_process(), started="1")))
    time.sleep(_SETTLING_SECONDS)
    index_of(home).unlink()
    assert _row(home, 220).state == "crashed"
    assert 220 not in read_index(home)


def test_removed_and_new_runs_are_noticed(home: Path, spec: NewRun) -> None:
    shutil.rmtree(home / "run-230")
    new = create_run(home, spec)
    try:
        listed = _listed(home)
        assert listed[0].id == new.id
        assert listed == _truth(home)
        assert "run-230" not in {row.id for row in listed}
    finally:
        shutil.rmtree(new.paths.directory)


def test_numbers_that_json_has_not_come_back(home: Path) -> None:
    kept = read_index(home)[240]
    for loss in (math.inf, None, 0.1 + 0.2):
        write_index(home, {240: dataclasses.replace(kept, row=dataclasses.replace(kept.row, loss=loss))})
        assert read_index(home)[240].row.loss == loss
    write_index(home, {240: dataclasses.replace(kept, row=dataclasses.replace(kept.row, loss=math.nan))})
    assert math.isnan(read_index(home)[240].row.loss)


def _signed(rows: bytes, **heading: object) -> bytes:
    facts = {"schema": INDEX_SCHEMA, "diffcli": __version__, "sha256": hashlib.sha256(rows).hexdigest()}
    return json.dumps({**facts, **heading}).encode() + b"\n" + rows


def _with_another_heading(**heading: object) -> Callable[[bytes], bytes]:
    return lambda content: _signed(content.partition(b"\n")[2].replace(b"2000", b"1999"), **heading)


_BROKEN = {
    "empty": lambda _: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "one digit changed": lambda content: content.replace(b"2000", b"1999", 1),
    "no text": lambda _: os.urandom(5000),
    "no index": lambda _: b"[]\n",
    "rows without heading": lambda content: content.partition(b"\n")[2],
    "too deep": lambda _: _signed(b"[" * 100_000),
    "signed nonsense": lambda _: _signed(b"[[1, 2, 3]]"),
    "signed text": lambda _: _signed(b'"rows"'),
    "signed number": lambda _: _signed(b"7"),
    "another version": _with_another_heading(diffcli="0.0.1"),
    "a newer schema": _with_another_heading(schema=INDEX_SCHEMA + 1),
}


@pytest.mark.parametrize("damage", _BROKEN.values(), ids=_BROKEN.keys())
def test_a_broken_index_is_as_good_as_none_and_is_replaced(
    home: Path, damage: Callable[[bytes], bytes]
) -> None:
    content = index_of(home).read_bytes()
    index_of(home).write_bytes(damage(content))
    assert read_index(home) == {}
    assert _listed(home) == _truth(home)
    assert len(read_index(home)) > _RUNS - 50


def test_a_directory_or_a_pipe_in_place_of_the_index_does_no_harm(home: Path) -> None:
    for make in (Path.mkdir, os.mkfifo):
        index_of(home).unlink()
        make(index_of(home))
        assert _listed(home) == _truth(home)
        if index_of(home).is_dir():
            index_of(home).rmdir()
            index_of(home).touch()
    assert not list(home.glob("*.tmp"))


def test_a_home_that_cannot_be_written_is_listed_without_an_index(home: Path, without_privileges) -> None:
    index_of(home).unlink()
    home.chmod(0o555)
    try:
        with without_privileges():
            assert _listed(home) == _truth(home)
        assert not index_of(home).exists()
    finally:
        home.chmod(0o755)


def test_an_index_that_cannot_be_read_is_passed_over(home: Path, without_privileges) -> None:
    index_of(home).chmod(0)
    with without_privileges():
        assert read_index(home) == {}
        assert _listed(home) == _truth(home)


def test_a_copied_home_trusts_no_row_of_the_old_one(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    facts = file_facts(str(copy / "run-300"))
    assert read_index(copy)[300].facts != facts
    assert _listed(copy) == _truth(copy)


def test_short_lists_neither_read_nor_write_the_index(home: Path) -> None:
    index_of(home).write_bytes(b"untouched")
    newest = list_runs(home, limit=20, sizes=False).runs
    assert [_ageless(row) for row in newest] == _truth(home)[:20]
    assert index_of(home).read_bytes() == b"untouched"


def test_lists_at_once_with_changes_and_a_vanishing_index_are_true(home: Path, spawn) -> None:
    lists = [spawn(_LISTS_AGAIN_AND_AGAIN, home) for _ in range(2)]
    assert all(child.stdout.readline() == "listing\n" for child in lists)
    run, step = _run(home, 9), 2000
    status = read_status(run)
    while any(child.poll() is None for child in lists):
        step += 1
        status = write_status(run, dataclasses.replace(status, step=step))
        index_of(home).unlink(missing_ok=True)
        time.sleep(0.01)
    assert [child.stdout.read() for child in lists] == ["done\n"] * 2
    assert _row(home, 9).step == step
    assert not list(home.glob("*.tmp"))
