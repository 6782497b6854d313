"""Checkpoints: whole or absent, verified, the newest good one wins, never a silent start."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcli.errors import CorruptError, MissingError, StorageError
from diffcli.training import checkpoints
from diffcli.training.checkpoints import CheckpointContent
from diffcli.training.retention import Retention


def content(value: float) -> CheckpointContent:
    return CheckpointContent(
        tensors={"model": {"w": torch.full((3,), value)}, "ema-0.9": {"w": torch.full((3,), -value)}},
        counters={"images_seen": int(value), "sum": 0.1 + 0.2},
    )


@pytest.fixture
def three(tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, step, content(step))
    return tmp_path


def test_what_is_saved_is_what_is_read(three):
    found = checkpoints.newest_good(three)
    assert (found.step, found.rejected) == (3, ())
    assert torch.equal(checkpoints.read_tensors(found.directory, "model")["w"], torch.full((3,), 3.0))
    assert checkpoints.read_counters(found.directory) == {"images_seen": 3, "sum": 0.1 + 0.2}
    assert {path.name for path in found.directory.iterdir()} == {
        "model.safetensors",
        "ema-0.9.safetensors",
        "state.json",
        "manifest.json",
    }


def flip_a_bit(path):
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "bit-flipped": flip_a_bit,
    "holed": lambda path: path.write_bytes(path.read_bytes()[:-8] + bytes(8)),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("file", ["model.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(three, file, damage):
    path = checkpoints.directory_of(three, 3) / file
    DAMAGES[damage](path)
    found = checkpoints.newest_good(three)
    assert found.step == 2
    assert len(found.rejected) == 1
    assert "step-000003" in str(found.rejected[0])
    with pytest.raises(CorruptError):
        checkpoints.at_step(three, 3)


def test_an_extra_file_is_refused(three):
    (checkpoints.directory_of(three, 3) / "extra.pt").write_bytes(b"?")
    with pytest.raises(CorruptError, match=r"extra\.pt"):
        checkpoints.at_step(three, 3)


def test_a_newer_schema_is_refused_with_advice(three):
    path = checkpoints.directory_of(three, 3) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.raises(CorruptError, match="schema 99") as caught:
        checkpoints.at_step(three, 3)
    assert "version" in caught.value.remedy


def test_when_all_are_bad_it_is_corrupt_and_never_step_zero(three):
    for step in (1, 2, 3):
        (checkpoints.directory_of(three, step) / "model.safetensors").write_bytes(b"")
    with pytest.raises(CorruptError, match="none of the 3"):
        checkpoints.newest_good(three)


def test_none_at_all_is_missing(tmp_path):
    with pytest.raises(MissingError):
        checkpoints.newest_good(tmp_path)


def retention(*, keep_last=2, keep_every=0, pinned=frozenset()):
    return Retention(keep_last=keep_last, keep_every=keep_every, pinned=lambda: pinned)


def test_retention_keeps_the_newest(three):
    checkpoints.prune(three, retention(), up_to_step=3)
    assert checkpoints.steps_present(three) == (2, 3)


def test_retention_does_not_count_what_lies_ahead(three):
    checkpoints.prune(three, retention(), up_to_step=2)
    assert checkpoints.steps_present(three) == (1, 2, 3)


def test_retention_keeps_two_whatever_is_asked_for(three):
    checkpoints.prune(three, retention(keep_last=0), up_to_step=3)
    assert checkpoints.steps_present(three) == (2, 3)


@given(
    steps=st.lists(st.integers(0, 100), unique=True, max_size=20).map(sorted),
    keep_last=st.integers(1, 5),
    keep_every=st.integers(0, 10),
    pinned=st.frozensets(st.integers(0, 100), max_size=5),
)
def test_what_may_go_is_neither_new_nor_a_milestone_nor_pinned(steps, keep_last, keep_every, pinned):
    going = retention(keep_last=keep_last, keep_every=keep_every, pinned=pinned).superfluous(steps)
    kept = [step for step in steps if step not in going]
    assert kept[-2:] == steps[-2:]
    assert kept[-keep_last:] == steps[-keep_last:]
    assert not set(going) & pinned
    assert all(keep_every == 0 or step % keep_every for step in going)
    needless = set(steps[: -max(2, keep_last)]) - pinned
    assert set(going) == {step for step in needless if keep_every == 0 or step % keep_every}


def test_pins_that_cannot_be_read_keep_all(three):
    checkpoints.prune(three, retention(pinned=None), up_to_step=3)
    assert checkpoints.steps_present(three) == (1, 2, 3)


def test_what_is_abandoned_is_moved_whole_and_not_deleted(three, tmp_path):
    checkpoints.abandon_after(three, 1, tmp_path / "abandoned")
    assert checkpoints.steps_present(three) == (1,)
    assert checkpoints.newest_good(tmp_path / "abandoned").step == 3
    checkpoints.abandon_after(three, 1, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_save_for_which_there_is_no_space_touches_nothing(three):
    before = {path: path.read_bytes() for path in three.rglob("*") if path.is_file()}
    huge = CheckpointContent(
        # a view of one number: as big as it says, with no memory of its own
        tensors={"model": {"w": torch.zeros(1).expand(2**48)}},
        counters={},
    )
    with pytest.raises(StorageError, match=r"not enough space .* are needed, .* are free"):
        checkpoints.save(three, 4, huge)
    assert {path: path.read_bytes() for path in three.rglob("*") if path.is_file()} == before


def test_leftovers_of_a_killed_save_are_cleared_and_never_chosen(three):
    staging = three / ".staging-step-000004"
    staging.mkdir()
    (staging / "model.safetensors").write_bytes(b"half")
    assert checkpoints.newest_good(three).step == 3
    checkpoints.clear_leftovers(three)
    assert sorted(path.name for path in three.iterdir()) == ["step-000001", "step-000002", "step-000003"]


def test_saving_the_same_step_again_replaces_it(three):
    checkpoints.save(three, 3, content(9))
    found = checkpoints.at_step(three, 3)
    assert torch.equal(checkpoints.read_tensors(found.directory, "model")["w"], torch.full((3,), 9.0))
