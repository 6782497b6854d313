"""Pins are kept beside each other, outlive old and broken files, and keep a run out of the trash."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from diffcli.errors import CorruptError, StorageError, UsageError
from diffcli.registry.create import NewRun, Run, create_run
from diffcli.registry.lock import acquire_lock
from diffcli.registry.pins import pin, unpin
from diffcli.registry.resolve import resolve
from diffcli.registry.run_record import (
    ANNOTATIONS_SCHEMA,
    Annotations,
    pinned_steps,
    read_annotations,
    write_annotations,
)
from diffcli.registry.trash import move_to_trash

_PIN_FIVE = """
import sys
from pathlib import Path
from diffcli.registry.create import open_run
from diffcli.registry.pins import pin
run = open_run(Path(sys.argv[1]), "run-1")
print("ready", flush=True)
sys.stdin.readline()
for step in range(5):
    pin(run.paths, run.record, 10 * int(sys.argv[2]) + step)
"""


@pytest.fixture
def run(home: Path, spec: NewRun) -> Run:
    return create_run(home, spec)


def _annotations(run: Run) -> Annotations:
    return read_annotations(run.paths, run.record)


def test_pins_are_sorted_and_set_once(run: Run) -> None:
    for step in (500, 20, 500, 1000):
        pin(run.paths, run.record, step)
    assert _annotations(run) == Annotations(name="base", pinned_steps=(20, 500, 1000))
    assert pinned_steps(run.paths) == {20, 500, 1000}
    unpin(run.paths, run.record, 500)
    unpin(run.paths, run.record, 7)
    assert pinned_steps(run.paths) == {20, 1000}


def test_a_run_and_its_checkpoints_are_pinned_apart(run: Run) -> None:
    pin(run.paths, run.record, None)
    assert _annotations(run).pinned
    assert pinned_steps(run.paths) == frozenset()
    pin(run.paths, run.record, 5)
    unpin(run.paths, run.record, None)
    assert _annotations(run) == Annotations(name="base", pinned_steps=(5,))


def test_a_pin_touches_nothing_else_and_needs_no_lock(run: Run) -> None:
    write_annotations(run.paths, Annotations(name="new name", tags=("a",), note="why"))
    with acquire_lock(run.paths):
        pin(run.paths, run.record, 5)
        assert pinned_steps(run.paths) == {5}
    assert _annotations(run) == Annotations(name="new name", tags=("a",), note="why", pinned_steps=(5,))


def test_of_many_pins_at_once_none_is_lost(run: Run, spawn) -> None:
    home = run.paths.directory.parent
    processes = [spawn(_PIN_FIVE, home, number) for number in range(6)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.wait(timeout=60) for process in processes] == [0] * 6
    assert pinned_steps(run.paths) == {10 * number + step for number in range(6) for step in range(5)}


def test_annotations_from_before_there_were_pinned_steps_are_read(run: Run) -> None:
    old = {"schema": 1, "name": "old", "tags": ["a"], "note": "n", "pinned": False}
    run.paths.annotations.write_text(json.dumps(old))
    assert _annotations(run) == Annotations(name="old", tags=("a",), note="n")
    assert pinned_steps(run.paths) == frozenset()
    pin(run.paths, run.record, 5)
    assert json.loads(run.paths.annotations.read_text()) == {
        **old,
        "schema": ANNOTATIONS_SCHEMA,
        "pinned_steps": [5],
    }


def test_without_a_file_nothing_is_pinned(run: Run) -> None:
    run.paths.annotations.unlink()
    assert pinned_steps(run.paths) == frozenset()


@pytest.mark.parametrize(
    "content", ["", "{}", '{"schema": 1, "name": "a", "pinned_steps": 5}', '{"schema": 9}']
)
def test_pins_that_cannot_be_read_are_not_taken_for_none(run: Run, content: str) -> None:
    run.paths.annotations.write_text(content)
    with pytest.raises(CorruptError, match=r"annotations\.json"):
        pinned_steps(run.paths)
    with pytest.raises(CorruptError):
        pin(run.paths, run.record, 5)
    assert run.paths.annotations.read_text() == content


def test_annotations_behind_a_bad_disk_are_not_taken_for_none(run: Run) -> None:
    run.paths.annotations.unlink()
    run.paths.annotations.mkdir()
    with pytest.raises(StorageError):
        pinned_steps(run.paths)


@pytest.mark.parametrize("pins", [(None,), (5,), (None, 5, 7)])
def test_what_is_pinned_is_not_removed_nor_any_other_named_with_it(
    run: Run, spec: NewRun, pins: tuple[int | None, ...]
) -> None:
    home = run.paths.directory.parent
    other = create_run(home, spec)
    for step in pins:
        pin(run.paths, run.record, step)
    runs = [other.paths, run.paths]
    with pytest.raises(UsageError, match="run-1 ") as caught:
        move_to_trash(home, runs)
    assert caught.value.exit_code == 2
    assert other.paths.record.exists()
    # the advice, followed to the letter
    *words, first = shlex.split(caught.value.remedy.removeprefix("first: "))[:4]
    assert [*words, first] == ["diffcli", "runs", "unpin", "run-1" if None in pins else "run-1@5"]
    for step in pins:
        unpin(run.paths, run.record, step)
    move_to_trash(home, runs)
    assert not run.paths.directory.exists()


def test_a_broken_run_can_go_to_the_trash_although_its_pins_are_not_known(run: Run) -> None:
    home = run.paths.directory.parent
    run.paths.annotations.write_text("{")
    move_to_trash(home, [resolve(home, "run-1")])
    assert not run.paths.directory.exists()
