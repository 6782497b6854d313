"""Trials 11 to 13 and 15: checkpoints with damaged, missing or foreign files, for all who load them."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aftermath import CORRUPT, assert_ended, assert_sound, peak_memory_bytes
from diffcli.errors import CorruptError
from diffcli.training import checkpoints
from forged_checkpoints import agree, change_manifest
from runs_in_processes import RESUME, assert_same_training, attempts, checkpoint, fork

FILES = (
    "model.safetensors",
    "ema-0.9.safetensors",
    "optimizer.safetensors",
    "state.json",
    "manifest.json",
)
NEWEST, BEFORE = 6, 4
SAMPLE = ("sample", "run-1", "--num", "1", "--steps", "2", "--device", "cpu")
EVAL = ("eval", "run-1", "--nll", "--num", "1", "--timesteps", "2", "--device", "cpu")
HOLE_BYTES = 4096
HUGE_BYTES = 2**29


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def punch_a_hole(path: Path) -> None:
    content = bytearray(path.read_bytes())
    start = max(0, len(content) // 2 - HOLE_BYTES // 2)
    hole = content[start : start + HOLE_BYTES]
    assert any(hole)
    content[start : start + HOLE_BYTES] = bytes(len(hole))
    path.write_bytes(content)


DAMAGES = {"truncated": truncate, "empty": empty, "bit-flipped": flip_a_bit, "holed": punch_a_hole}


def test_these_are_all_files_of_a_checkpoint(trained):
    present = {path.name for path in checkpoint(trained.run(), NEWEST).iterdir()}
    assert present == {*FILES, "ema-0.99.safetensors"}


def every_file_and_every_damage() -> list[object]:
    """All pairs; those that say nothing new of the commands are slow, since the next test has them too."""
    first = dict(zip(FILES, [*DAMAGES, "bit-flipped"], strict=True))
    return [
        pytest.param(file, damage, marks=[] if first[file] == damage else pytest.mark.slow)
        for file in FILES
        for damage in DAMAGES
    ]


@pytest.mark.parametrize(("file", "damage"), every_file_and_every_damage())
def test_a_resume_names_a_damaged_file_and_goes_on_from_the_checkpoint_before(file, damage, bench, trained):
    DAMAGES[damage](checkpoint(bench.run(), NEWEST) / file)
    resumed = fork(bench, *RESUME)
    assert_ended(resumed, 0, "damaged", f"checkpoints/step-{NEWEST:06d}/{file}", f"from step {BEFORE}")
    assert attempts(bench.run())[-1]["first_step"] == BEFORE
    assert_same_training(bench.run(), trained.run(), step=NEWEST)
    assert_sound(bench)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_every_damage_of_every_file_is_seen_and_named(file, damage, bench):
    DAMAGES[damage](checkpoint(bench.run(), NEWEST) / file)
    found = checkpoints.newest_good(bench.run() / "checkpoints")
    assert found.step == BEFORE
    assert [file in str(error) for error in found.rejected] == [True]
    with pytest.raises(CorruptError, match=file):
        checkpoints.at_step(bench.run() / "checkpoints", NEWEST)


@pytest.mark.parametrize(("file", "damage"), list(zip(FILES, [*DAMAGES, "truncated"], strict=True)))
def test_sample_and_eval_name_a_damaged_file_and_use_the_checkpoint_before(file, damage, bench):
    DAMAGES[damage](checkpoint(bench.run(), NEWEST) / file)
    named = f"checkpoints/step-{NEWEST:06d}/{file}"
    for command in (SAMPLE, EVAL):
        assert_ended(fork(bench, *command), 0, "damaged", named)
        assert_ended(fork(bench, *command, "--checkpoint", str(NEWEST)), CORRUPT, named)
    (archive,) = (bench.run() / "samples").iterdir()
    assert json.loads((archive / "sample.json").read_text())["checkpoint"] == BEFORE
    (numbers,) = (bench.run() / "evals").glob("*.json")
    assert json.loads(numbers.read_text())["model"]["checkpoint"] == BEFORE
    assert_sound(bench)


def test_when_all_are_bad_nothing_starts_at_step_0(bench):
    for step, damage in zip((2, 4, 6), DAMAGES.values(), strict=False):
        damage(checkpoint(bench.run(), step) / "model.safetensors")
    before = content_of(bench.run())
    for command in (RESUME, SAMPLE, EVAL):
        refused = fork(bench, *command)
        assert_ended(refused, CORRUPT, "none of the 3 checkpoints", "model.safetensors", "new run")
        assert content_of(bench.run()) == before
    assert_sound(bench, without_good_checkpoint=("run-1",))


def content_of(run: Path) -> dict[Path, bytes]:
    """All files but the lock, which is signed by whoever looks."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "run.lock"}


# ---- manifests ----


WRONG_MANIFESTS = {
    "a file is missing": (
        lambda directory: (directory / "ema-0.99.safetensors").unlink(),
        ["ema-0.99.safetensors", "missing"],
    ),
    "a file is extra": (
        lambda directory: (directory / "extra.pt").write_bytes(b"?"),
        ["extra.pt", "manifest does not know"],
    ),
    "a listed file never was": (
        lambda directory: change_manifest(
            directory, lambda manifest: manifest["files"].update({"x": {"bytes": 1, "sha256": "0"}})
        ),
        ["step-000006/x", "missing"],
    ),
    "a name leads outside": (
        lambda directory: change_manifest(
            directory, lambda manifest: manifest["files"].update({"../x": {"bytes": 1, "sha256": "0"}})
        ),
        ["../x", "missing"],
    ),
    "a newer schema": (
        lambda directory: change_manifest(directory, lambda manifest: manifest.update(schema=99)),
        ["schema 99", "newer"],
    ),
    "no object": (lambda directory: (directory / "manifest.json").write_text("[]"), ["manifest.json"]),
    "brackets only": (
        lambda directory: (directory / "manifest.json").write_text("[" * 100_000),
        ["manifest.json"],
    ),
    "no size": (
        lambda directory: change_manifest(
            directory, lambda manifest: manifest["files"]["state.json"].clear()
        ),
        ["manifest.json"],
    ),
}


@pytest.mark.parametrize("wrong", WRONG_MANIFESTS)
def test_a_wrong_manifest_is_refused_and_named(wrong, bench):
    change, phrases = WRONG_MANIFESTS[wrong]
    change(checkpoint(bench.run(), NEWEST))
    found = checkpoints.newest_good(bench.run() / "checkpoints")
    assert found.step == BEFORE
    (error,) = found.rejected
    assert [phrase for phrase in phrases if phrase not in str(error)] == []
    with pytest.raises(CorruptError):
        checkpoints.at_step(bench.run() / "checkpoints", NEWEST)


@pytest.mark.parametrize("wrong", ["a file is missing", "a file is extra"])
def test_a_wrong_manifest_is_told_by_sample(wrong, bench):
    change, phrases = WRONG_MANIFESTS[wrong]
    change(checkpoint(bench.run(), NEWEST))
    assert_ended(fork(bench, *SAMPLE, "--checkpoint", "6"), CORRUPT, *phrases)
    assert_ended(fork(bench, *SAMPLE), 0, "damaged", *phrases)
    assert_sound(bench)


def test_a_newer_schema_comes_with_advice(bench):
    for step in (2, 4, 6):
        change_manifest(checkpoint(bench.run(), step), lambda manifest: manifest.update(schema=99))
    assert_ended(fork(bench, *SAMPLE, "--checkpoint", "6"), CORRUPT, "schema 99", "version of diffcli")
    assert_ended(fork(bench, *RESUME), CORRUPT, "schema 99")
    assert_sound(bench, without_good_checkpoint=("run-1",))


# ---- files that the manifest agrees with, made by somebody else ----


def with_tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(tensors)
        save_file(tensors, path)

    return rewrite


def header_only(header: bytes, *, claimed: int | None = None, size_bytes: int = 0) -> Callable[[Path], None]:
    """A file of this header, with zeros that take no space up to its size."""

    def write(path: Path) -> None:
        path.write_bytes(struct.pack("<Q", len(header) if claimed is None else claimed) + header)
        os.truncate(path, max(size_bytes, path.stat().st_size))

    return write


def tensor_header(shape: list[int], end: int) -> bytes:
    return json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()


FOREIGN = {
    "a text": (lambda path: path.write_text("no tensors\n" * 9), "not a safetensors file"),
    "a header of 2**60 bytes": (header_only(b"{}", claimed=2**60), "not a safetensors file"),
    "a header longer than the file": (header_only(b"{}", claimed=99_000_000), "not a safetensors file"),
    "a header that is no JSON": (header_only(b"{" * 5000), "not a safetensors file"),
    "a tensor of 2**60 numbers": (header_only(tensor_header([2**60], 2**62)), "not a safetensors file"),
    "a tensor beyond the end": (header_only(tensor_header([1000], 4000)), "not a safetensors file"),
    "wrong shapes": (
        with_tensors(
            lambda tensors: tensors.update({name: t.reshape(1, *t.shape) for name, t in tensors.items()})
        ),
        "needed is",
    ),
    "wrong dtypes": (
        with_tensors(lambda tensors: tensors.update({name: t.double() for name, t in tensors.items()})),
        "torch.float64, needed is",
    ),
    "missing keys": (
        with_tensors(lambda tensors: [tensors.pop(name) for name in sorted(tensors)[:5]]),
        "is missing",
    ),
    "extra keys": (
        with_tensors(lambda tensors: tensors.update({f"new.{i}": torch.zeros(2) for i in range(9)})),
        "new.0 is not known",
    ),
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_tensors_that_are_not_this_networks_are_listed(foreign, trained, tmp_path):
    write, phrase = FOREIGN[foreign]
    path = tmp_path / "model.safetensors"
    shutil.copy(checkpoint(trained.run(), NEWEST) / "model.safetensors", path)
    expected = load_file(path)
    write(path)
    with pytest.raises(CorruptError, match=r"model\.safetensors") as caught:
        checkpoints.read_fitting(tmp_path, "model", expected)
    assert phrase in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("foreign", ["a header of 2**60 bytes", "wrong shapes", "extra keys"])
def test_sample_lists_tensors_that_are_not_this_networks(foreign, bench):
    write, phrase = FOREIGN[foreign]
    directory = checkpoint(bench.run(), NEWEST)
    write(directory / "model.safetensors")
    agree(directory)
    assert_ended(fork(bench, *SAMPLE, "--ema", "none"), CORRUPT, "model.safetensors", phrase)
    shutil.rmtree(directory)
    assert_sound(bench)


@pytest.mark.parametrize("file", ["model", "optimizer"])
def test_a_resume_lists_tensors_that_are_not_this_trainings(file, bench):
    directory = checkpoint(bench.run(), NEWEST)
    change = with_tensors(lambda tensors: [tensors.pop(name) for name in sorted(tensors)[:5]])
    change(directory / f"{file}.safetensors")
    agree(directory)
    before = content_of(bench.run() / "checkpoints")
    refused = fork(bench, *RESUME, "--steps", "7")
    assert_ended(refused, CORRUPT, f"{file}.safetensors", "is missing", "and 2 more")
    assert content_of(bench.run() / "checkpoints") == before
    shutil.rmtree(directory)
    assert_sound(bench)


def test_a_huge_tensor_in_place_of_small_ones_takes_no_memory(bench):
    usual = peak_memory_bytes(fork(bench, *SAMPLE))
    directory = checkpoint(bench.run(), NEWEST)
    claimed = tensor_header([HUGE_BYTES // 4], HUGE_BYTES)
    header_only(claimed, size_bytes=8 + len(claimed) + HUGE_BYTES)(directory / "ema-0.9.safetensors")
    agree(directory)
    refused = fork(bench, *SAMPLE)
    assert peak_memory_bytes(refused) < usual + HUGE_BYTES / 4
    assert_ended(refused, CORRUPT, "ema-0.9.safetensors", "is missing")
    shutil.rmtree(directory)
    assert_sound(bench)


COUNTERS = {
    "no counters": lambda path: path.write_text('{"schema": 1, "step": 6}'),
    "none of these": lambda path: path.write_text('{"schema": 1, "step": 6, "counters": {"x": 1}}'),
    "no object": lambda path: path.write_text("[1]"),
    "text for numbers": lambda path: path.write_text(re.sub(r": \d+(\.\d+)?", ': "many"', path.read_text())),
    "brackets only": lambda path: path.write_text("[" * 100_000),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("wrong", COUNTERS)
def test_counters_that_are_none_are_refused(wrong, bench):
    directory = checkpoint(bench.run(), NEWEST)
    COUNTERS[wrong](directory / "state.json")
    agree(directory)
    assert_ended(fork(bench, *RESUME, "--steps", "7"), CORRUPT, "state.json")
