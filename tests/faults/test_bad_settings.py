"""Trial 28: preset files and settings that cannot be meant: all problems at once, and nothing begun."""

from __future__ import annotations

import pytest

from aftermath import USAGE, assert_ended
from runs_in_processes import fork

FILES: dict[str, tuple[bytes, list[str]]] = {
    "malformed": (b"[training]\nlr = = 1\n", ["line 2"]),
    "an open string": (b'[data]\nname = "digits\n', ["line 2"]),
    "a key twice": (b"[training]\nlr = 1e-3\nlr = 2e-3\n", ["line 3"]),
    "a section twice": (b"[training]\nlr = 1e-3\n[training]\nsteps = 3\n", ["line 3"]),
    "an unknown key": (b"[training]\nlrr = 1e-3\n", ["training.lrr", "training.lr?"]),
    "an unknown section": (b"[trainin]\nlr = 1e-3\n", ["trainin", "training"]),
    "a rate that is no number": (b"[training]\nlr = nan\n", ["training.lr", "nan", "finite"]),
    "an infinite rate": (b"[training]\nlr = inf\n", ["training.lr", "inf", "finite"]),
    "a number too large": (b"[training]\nsteps = 99999999999999999999999\n", ["training.steps"]),
    "no UTF-8": ("[training]\nlr = 1e-3 # größe\n".encode("latin-1"), ["UTF-8", "line 2"]),
    "UTF-16": ("[training]\nlr = 1e-3\n".encode("utf-16"), ["UTF-8"]),
    "zeros": (bytes(300), ["line 1"]),
    "brackets only": (b"a = " + b"[" * 100_000, []),
    "a table for a number": (b"[training.lr]\nx = 1\n", ["training.lr"]),
    "a number for a table": (b"training = 3\n", ["training"]),
}


@pytest.mark.parametrize("file", FILES)
def test_a_bad_preset_file_is_named_with_the_place(file, trained, tmp_path):
    content, phrases = FILES[file]
    (tmp_path / "bad.toml").write_bytes(content)
    runs = sorted(trained.runs.iterdir())
    refused = fork(trained, "train", "--preset", str(tmp_path / "bad.toml"))
    assert_ended(refused, USAGE, "bad.toml", *phrases)
    assert sorted(trained.runs.iterdir()) == runs


def test_all_problems_are_told_at_once_with_suggestions(trained, tmp_path):
    (tmp_path / "bad.toml").write_text('[training]\nlrr = 1e-3\nsteps = "many"\n[modle]\nchannels = 3\n')
    line = ("train", "--preset", str(tmp_path / "bad.toml"), "--set", "training.lr=nan", "--seed", "-1")
    refused = fork(trained, *line, "--set", "model.chanels=3")
    told = ["6 problems", "training.lrr", "did you mean training.lr?", "training.steps", "modle", "model"]
    told += ["training.lr = nan", "finite", "model.chanels", "model.channels?", "training.seed", "(--seed)"]
    assert refused.exit_code() == USAGE, refused.errors
    for words in told:
        assert words in refused.errors
    assert "Traceback" not in refused.errors


@pytest.mark.parametrize(
    "line",
    [
        ("train", "--resume", "run-1", "--set", "training.keep_lasst=3"),
        ("sample", "run-1", "--set", "sampling.clp=true"),
        ("eval", "run-1", "--nll", "--set", "sampling.clp=true"),
    ],
)
def test_a_misspelled_setting_is_refused_by_every_command(line, trained):
    assert_ended(fork(trained, *line), USAGE, line[-1].partition("=")[0], "did you mean")
