"""Files of tensors by other programs: what is read, and what every other file is told to be."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffcli.errors import CorruptError, MissingError, UsageError
from diffcli.interchange.tensor_files import read_weights
from traps import TRAPS, Trap

WEIGHTS = OrderedDict(
    (name, torch.randn(shape, generator=torch.Generator().manual_seed(position)))
    for position, (name, shape) in enumerate({"b.weight": (4, 3), "a.bias": (4,), "c": (2, 2, 1)}.items())
)
# advice that would be bad for the user's health
BAD_ADVICE = ("weights_only", "set to False", "allow_pickle")


def written(path, how):
    if how == "safetensors":
        save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=how == "zip")
    return path


@pytest.mark.parametrize("how", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "no suffix", "odd \udcff.pt"])
def test_weights_are_read_whatever_the_file_is_called(how, name, tmp_path):
    with (tmp_path / name).open("wb") as file:
        file.write(written(tmp_path / "made", how).read_bytes())
    found = read_weights(tmp_path / name)
    assert set(found) == set(WEIGHTS)
    assert all(torch.equal(found[key], tensor) for key, tensor in WEIGHTS.items())
    if how != "safetensors":
        assert list(found) == list(WEIGHTS)


def test_parameters_and_half_precision_are_weights_too(tmp_path):
    half = {"a": nn.Parameter(torch.ones(2)), "b": torch.ones(2).half(), "c": torch.ones(2).bfloat16()}
    torch.save(half, tmp_path / "w.pt")
    found = read_weights(tmp_path / "w.pt")
    assert [tensor.dtype for tensor in found.values()] == [torch.float32, torch.float16, torch.bfloat16]
    assert not any(tensor.requires_grad for tensor in found.values())


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("name", ["same", "model000001.pt", "model.safetensors"])
def test_a_file_that_would_run_code_is_corrupt_and_runs_none(trap, name, tmp_path):
    path = tmp_path / (trap if name == "same" else name)
    path.write_bytes(TRAPS[trap](Trap(tmp_path / "canary")))
    with pytest.raises(CorruptError) as told:
        read_weights(path)
    assert str(path) in told.value.what
    assert not any(advice in str(told.value) for advice in BAD_ADVICE)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("trap", ["a.pt", "legacy.pt"])
def test_what_a_file_asks_to_be_called_is_named(trap, tmp_path):
    (tmp_path / trap).write_bytes(TRAPS[trap](Trap(tmp_path / "canary")))
    with pytest.raises(CorruptError, match=r"asks for posix\.mkdir") as told:
        read_weights(tmp_path / trap)
    assert "nothing of it was run" in told.value.where


class Whole:
    """A class of another program, as it lies in files that hold a whole model."""

    def __init__(self):
        self.weight = torch.ones(2)


def npz():
    file = io.BytesIO()
    np.savez(file, arr_0=np.zeros(3))
    return file.getvalue()


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def compressed():
    made = io.BytesIO()
    torch.save(dict(WEIGHTS), made)
    file = io.BytesIO()
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    return file.getvalue()


NOT_CHECKPOINTS = {
    "empty": (b"", "it is empty"),
    "text": (b"no checkpoint at all\n" * 40, "neither a file of torch.save nor"),
    "a web page": (b"\n<!DOCTYPE html><html>404</html>", "a web page"),
    "a pointer of git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git LFS"),
    "a pickle of harmless things": (pickle.dumps({"a": [1.0]}), "Python pickle that torch.save did not"),
    "a NumPy archive": (npz(), "a NumPy archive"),
    "another zip": (zipped(readme="hello"), "a zip archive that torch.save did not write"),
    "compressed parts": (compressed(), "compressed parts"),
    "a brace": (b"\x10\x00\x00\x00\x00\x00\x00\x00{", "no safetensors file"),
}


@pytest.mark.parametrize("kind", NOT_CHECKPOINTS)
def test_what_is_no_checkpoint_is_told_what_it_is(kind, tmp_path):
    content, told = NOT_CHECKPOINTS[kind]
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(CorruptError, match=told):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("how", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95, 0.999])
def test_a_truncated_file_is_corrupt(how, share, tmp_path):
    whole = written(tmp_path / "w.pt", how).read_bytes()
    (tmp_path / "w.pt").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CorruptError, match=r"w\.pt") as told:
        read_weights(tmp_path / "w.pt")
    assert not any(advice in str(told.value) for advice in BAD_ADVICE)


def test_a_whole_model_of_another_program_is_not_loaded(tmp_path):
    torch.save({"model": Whole()}, tmp_path / "w.pt")
    with pytest.raises(CorruptError, match=r"asks for .*Whole"):
        read_weights(tmp_path / "w.pt")


def state_of_an_optimizer():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(2)
    optimizer.step()
    return optimizer.state_dict()


SOMETHING_ELSE = {
    "an optimizer": (state_of_an_optimizer(), "the state of an optimizer, not weights"),
    "a table of tables": ({"state_dict": dict(WEIGHTS), "epoch": 3}, "state_dict is a table of b.weight"),
    "a tensor": (torch.ones(3), "a Tensor"),
    "a list": ([torch.ones(3)], "a list"),
    "an empty table": ({}, "an empty table"),
    "numbers for names": ({3: torch.ones(3)}, "a int"),
}


@pytest.mark.parametrize("kind", SOMETHING_ELSE)
def test_sound_files_of_something_else_are_a_usage_error(kind, tmp_path):
    content, told = SOMETHING_ELSE[kind]
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(UsageError, match=told):
        read_weights(tmp_path / "w.pt")


ODD_TENSORS = {
    "whole numbers": torch.ones(2, dtype=torch.int64),
    "doubles": torch.ones(2, dtype=torch.float64),
    "on no device": torch.ones(2, device="meta"),
}


@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_tensors_of_another_sort_are_named(kind, tmp_path):
    torch.save({"fine": torch.ones(1), "odd": ODD_TENSORS[kind]}, tmp_path / "w.pt")
    with pytest.raises(CorruptError, match="odd is no plain floating-point tensor"):
        read_weights(tmp_path / "w.pt")


def test_a_sparse_tensor_is_refused_by_what_makes_it(tmp_path):
    torch.save({"odd": torch.ones(2).to_sparse()}, tmp_path / "w.pt")
    with pytest.raises(CorruptError, match=r"asks for torch\._utils\._rebuild_sparse_tensor"):
        read_weights(tmp_path / "w.pt")


class Calls:
    """A call that torch's safe unpickler makes, as torch.save writes it."""

    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


def many_tables():
    pairs = [(number, None) for number in range(1000)]
    return [Calls(OrderedDict, pairs) for _ in range(1000)]


GREEDY = {
    "a bytearray": (lambda: Calls(bytearray, 2**31), r"asks for \S*bytearray"),
    "a set": (lambda: Calls(set, [1, 2]), r"asks for \S*set"),
    "a storage": (lambda: Calls(torch.UntypedStorage, 2**31), r"asks for \S*UntypedStorage"),
    # each copies what the file holds once
    "one list in many tables": (many_tables, "damaged"),
    "endless calls": (lambda: [Calls(torch.Size, (1,)) for _ in range(60_000)], "damaged"),
}


@pytest.mark.parametrize("how", ["zip", "legacy"])
@pytest.mark.parametrize("kind", GREEDY)
def test_a_small_file_that_would_take_much_memory_is_refused_before_it_does(kind, how, tmp_path, monkeypatch):
    content, told = GREEDY[kind]
    torch.save({"a": content()}, tmp_path / "w.pt", _use_new_zipfile_serialization=how == "zip")
    # torch.load never sees the file
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(CorruptError, match=told):
        read_weights(tmp_path / "w.pt")


def test_an_endless_list_of_tensors_is_refused_by_its_size(tmp_path):
    torch.save({"a": "x" * (5 * 2**20)}, tmp_path / "w.pt")
    with pytest.raises(CorruptError, match="its list of tensors takes"):
        read_weights(tmp_path / "w.pt")


def test_a_state_dict_with_the_versions_of_its_modules_is_read(tmp_path):
    # module.state_dict() carries them as an attribute
    module = nn.Sequential(*(nn.Linear(2, 2) for _ in range(100)))
    for how in (True, False):
        torch.save(module.state_dict(), tmp_path / "w.pt", _use_new_zipfile_serialization=how)
        assert list(read_weights(tmp_path / "w.pt")) == list(module.state_dict())


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "w.pt")
    with pytest.raises(UsageError, match="no regular file"):
        read_weights(tmp_path / "w.pt")


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(MissingError, match=r"there is no file .*w\.pt"):
        read_weights(tmp_path / "w.pt")


def test_a_tensor_that_claims_to_be_huge_takes_no_memory(tmp_path):
    # a view of one number as a million million of them: only its shape is looked at
    torch.save({"a": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt")["a"].shape == (10**6, 10**6)
