"""Pickles read without running anything: what numpy and Python 2 wrote, and nothing else."""

from __future__ import annotations

import os
import pickle
import pickletools
import random
from pathlib import Path

import numpy as np
import pytest

from diffcli.data.sources.plain_pickle import NotPlainError, read_plain_pickle
from published_layouts import cifar_batch, noise, python2_pickle

PIXELS = noise(3, 3072)


def test_a_batch_as_python_2_wrote_it():
    content = cifar_batch(PIXELS, [6, 9, 9])
    # the writer of the tests is right: Python itself reads the same
    expected = pickle.loads(content, encoding="latin1")
    found = read_plain_pickle(content)
    assert list(found) == list(expected) == ["batch_label", "labels", "data", "filenames"]
    assert found["labels"] == [6, 9, 9]
    assert np.array_equal(found["data"], expected["data"])
    assert np.array_equal(found["data"], PIXELS)
    assert found["filenames"] == expected["filenames"]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_values_of_other_protocols(protocol):
    value = {"a": [1, 255, 70_000, -5, 2**40, True, False, None, "größe", ("x", 1, 2)], 3: {}, "b": ()}
    assert read_plain_pickle(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_of_later_protocols(protocol):
    found = read_plain_pickle(pickle.dumps({b"data": PIXELS, "raw": b"\x00\xff"}, protocol))
    assert np.array_equal(found[b"data"], PIXELS)
    assert found["raw"] == b"\x00\xff"


def test_a_value_may_be_used_twice():
    same = [1, 2]
    assert read_plain_pickle(pickle.dumps({"a": same, "b": same}, 2)) == {"a": [1, 2], "b": [1, 2]}


class Call:
    """Is unpickled by a call."""

    def __init__(self, called, *arguments):
        self.called, self.arguments = called, arguments

    def __reduce__(self):
        return self.called, self.arguments


def hostile(canary: Path) -> dict[str, bytes]:
    """Pickles that make a directory when they are unpickled, or do what plain values never need."""
    make = Call(os.mkdir, str(canary))
    return {
        "bare": pickle.dumps(make, 2),
        "in a list": pickle.dumps({"labels": [make]}, 2),
        "as a key's value": pickle.dumps({"data": make}, 4),
        "text": pickle.dumps(make, 0),
        "eval": pickle.dumps(Call(eval, f"__import__('os').mkdir({str(canary)!r})"), 2),
        "getattr": pickle.dumps(Call(getattr, "x", "upper"), 2),
        "numpy load": pickle.dumps(Call(np.load, str(canary)), 2),
        "a numpy object": pickle.dumps({"data": np.array([make], dtype=object)}, 2),
        "a numpy scalar": pickle.dumps({"labels": np.int64(3)}, 2),
        "floats": pickle.dumps({"data": np.ones(3)}, 2),
        "stack global": b"\x80\x04\x8c\x05posix\x8c\x05mkdir\x93\x8c\x01x\x85R.",
        "instance": b"(S'" + str(canary).encode() + b"'\nios\nmkdir\n.",
        "object": b"\x80\x02(cos\nmkdir\nS'" + str(canary).encode() + b"'\no.",
        "new object": b"\x80\x02cos\nmkdir\nU\x01x\x85\x81.",
        "persistent": b"\x80\x02U\x01xQ.",
        "extension": b"\x80\x02\x82\x01.",
        "a function for a dtype": b"\x80\x02cnumpy\ndtype\ncos\nmkdir\n\x85R.",
        "another numpy name": b"\x80\x02cnumpy.core.multiarray\nfromfile\nU\x01x\x85R.",
        "dots in names": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x93.",
    }


@pytest.mark.parametrize("trap", hostile(Path("canary")))
def test_a_trap_is_not_sprung(trap, tmp_path):
    canary = tmp_path / "canary"
    with pytest.raises(NotPlainError):
        read_plain_pickle(hostile(canary)[trap])
    assert list(tmp_path.iterdir()) == []


def test_the_traps_are_traps(tmp_path):
    canary = tmp_path / "canary"
    for trap in (
        "bare",
        "in a list",
        "as a key's value",
        "text",
        "eval",
        "a numpy object",
        "instance",
        "object",
    ):
        pickle.loads(hostile(canary)[trap])
        canary.rmdir()


LIES = {
    "empty": b"",
    "no end": b"\x80\x02}",
    "nothing on the stack": b"\x80\x02.",
    "a shape that does not fit": cifar_batch(PIXELS, [1]).replace(
        b"K\x03J\x00\x0c\x00\x00", b"K\x04J\x00\x0c\x00\x00"
    ),
    "a text longer than the file": b"\x80\x02T\xff\xff\xff\x7fabc.",
    "a text of negative length": b"\x80\x02T\xff\xff\xff\xffabc.",
    "a memory that is not there": b"\x80\x02h\x07.",
    "items without a mark": b"\x80\x02]e.",
    "items of what is no list": b"\x80\x02K\x01(K\x01e.",
    "a key without a value": b"\x80\x02}(K\x01u.",
    "a list as a key": b"\x80\x02}(]K\x01u.",
    "a name for a value": b"\x80\x02cnumpy\nndarray\n.",
    "an array without content": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.",
    "a mark for a value": b"\x80\x02(.",
    "a tuple of too much": b"\x80\x02K\x01\x87.",
}


# forty times twice the same: in memory a few tuples, as text terabytes
_TWICE = b")" + b"q\x00h\x00h\x00\x86" * 40
LIES |= {
    "a doubled argument": b"\x80\x02cnumpy\ndtype\n" + _TWICE + b"R.",
    "a doubled dtype": b"\x80\x02cnumpy\ndtype\n" + _TWICE + b"\x85R.",
    "a doubled module": b"\x80\x04" + _TWICE + b"\x8c\x05dtype\x93.",
    "a doubled name": b"\x80\x04\x8c\x05numpy" + _TWICE + b"\x93.",
    "a doubled shape": (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01}K\x01" + _TWICE + b"s"
        b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85R\x89U\x01xtb."
    ),
    "a million sides": (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01(" + b"K\x09" * 400_000 + b"t"
        b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85R\x89U\x01xtb."
    ),
    "a million marks": b"\x80\x02" + b"(" * 1_000_000 + b"t" * 1_000_000 + b".",
    "a million lists": b"\x80\x02(" + b"]" * 1_000_000 + b"t.",
    "a number of thousands of digits": b"\x80\x02\x8b" + (9000).to_bytes(4, "little") + b"\x7f" * 9000 + b".",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("lie", LIES)
def test_what_is_no_pickle_of_plain_values(lie):
    with pytest.raises(NotPlainError):
        read_plain_pickle(LIES[lie])


def test_no_damage_is_more_than_an_error():
    content = cifar_batch(noise(1, 3072), [3])
    randomness = random.Random(0)
    places = [place for _, _, place in pickletools.genops(content)]
    refused = 0
    for _ in range(3000):
        damaged = bytearray(content)
        damaged[randomness.choice(places[:-4]) + randomness.randrange(4)] = randomness.randrange(256)
        try:
            read_plain_pickle(bytes(damaged))
        except NotPlainError:
            refused += 1
    assert refused > 1000


def test_python2_writer_of_numbers():
    assert pickle.loads(python2_pickle({"a": [0, 255, 256, -1]})) == {"a": [0, 255, 256, -1]}
