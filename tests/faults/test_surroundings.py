"""Trials 29 and 30: directories, names, languages and streams that are not as usual, for every command."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest
from PIL import Image

from aftermath import STORAGE, assert_ended, assert_sound, listed_runs
from diffcli_process import shell_environment
from permissions import forgo_root_rights
from runs_in_processes import NEW, RESUME, Trouble, fork, make_bench

SAMPLE = ("sample", "run-1", "--num", "2", "--steps", "2", "--device", "cpu")
EVAL = ("eval", "run-1", "--nll", "--num", "1", "--timesteps", "2", "--device", "cpu")
TWO_STEPS = (*NEW, "--steps", "2")


# ---- places ----


@dataclass(frozen=True, kw_only=True)
class BoundByPermissions:
    """Root too may only write where permissions let it: no CAP_DAC_OVERRIDE (capabilities(7))."""

    def arm(self) -> None:
        """Lay the trap."""
        forgo_root_rights()


@contextlib.contextmanager
def read_only(top: Path) -> Iterator[None]:
    directories = [path for path in (top, *top.rglob("*")) if path.is_dir()]
    for directory in directories:
        directory.chmod(0o555)
    yield
    for directory in directories:
        directory.chmod(0o755)


WRITING = {
    "a new run": (TWO_STEPS, "runs"),
    "a resume": ((*RESUME, "--steps", "7"), "runs"),
    "samples": (SAMPLE, "runs"),
    "numbers": (EVAL, "runs"),
    "a dataset": (("prepare", "folder", "folder", "--size", "8"), "data"),
    "a removal": (("runs", "rm", "run-1", "--yes"), "runs"),
}


@pytest.mark.parametrize("writing", WRITING)
def test_a_read_only_directory_is_named_and_stays_as_it_is(writing, bench):
    line, directory = WRITING[writing]
    (bench.directory / "folder").mkdir()
    Image.new("L", (9, 9)).save(bench.directory / "folder" / "a_1.png")
    before = content_of(bench.directory / directory)
    with read_only(bench.directory / directory):
        refused = fork(bench, *line, moment=BoundByPermissions())
        assert_ended(refused, STORAGE, "permission denied", directory)
    assert content_of(bench.directory / directory) == before
    assert_sound(bench)


@pytest.mark.parametrize("line", [("runs", "ls"), ("runs", "show", "run-1"), (*NEW, "--dry-run")])
def test_reading_needs_no_permission_to_write(line, bench):
    with read_only(bench.directory / "runs"):
        assert_ended(fork(bench, *line, moment=BoundByPermissions()), 0)
    assert_sound(bench)


def content_of(directory: Path) -> dict[Path, bytes]:
    """All files but the lock, which is signed by whoever looks."""
    return {
        path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.suffix != ".lock"
    }


def test_no_home_is_needed(trained, tmp_path):
    environment = shell_environment(HOME="/nowhere/at/all")
    for name in ("USER", "LOGNAME", "TMPDIR"):
        environment.pop(name, None)
    done = run_in(environment, *TWO_STEPS, "--runs", str(tmp_path / "runs"), directory=trained.directory)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"run-1\tcompleted\tstep 2/2")
    # and without the variable, as a service has it
    del environment["HOME"]
    listed = run_in(environment, "runs", "ls", "--runs", str(tmp_path / "runs"), directory=trained.directory)
    assert b"run-1" in listed.stdout


def run_in(environment: dict[str, str], *line: str, directory: Path) -> subprocess.CompletedProcess[bytes]:
    """Run diffcli from its start in exactly this environment."""
    command = [sys.executable, "-m", "diffcli", *line]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, check=False)


ODD = os.fsdecode(b"a b\n\xf0\x9f\x8e\xa8 \x1b[31m\xff'\"$(x)")


def test_a_directory_of_an_odd_name_is_as_good_as_any(tmp_path, trained):
    (tmp_path / ODD).mkdir()
    bench = make_bench(tmp_path / ODD, (trained.directory / "tiny.toml").read_text())
    # also where the name stands in the path that is given
    runs = ("--runs", str(bench.runs))
    for line in (TWO_STEPS, (*RESUME, "--steps", "3"), SAMPLE, EVAL, ("runs", "show", "run-1")):
        ended = fork(bench, *line, *runs)
        assert_ended(ended, 0)
        assert "\x1b" not in ended.output + ended.errors
    shown = json.loads(fork(bench, "runs", "show", "run-1", "--json").succeeds().output)
    assert shown["checkpoints"]
    assert_sound(bench)


def test_image_files_and_folders_of_odd_names(bench):
    folder = bench.directory / ODD
    folder.mkdir()
    no_text = os.fsdecode(b"\xe9\xff_1.png")
    for name in ("a b_1.png", "new\nline_1.png", "🎨_1.png", "-dash_1.png", no_text, "._1.png"):
        Image.new("L", (9, 9)).save(folder / name)
    made = fork(bench, "prepare", "folder", ODD, "--size", "8", "--name", "odd", "--channels", "1")
    # what macOS puts beside the files of other systems
    assert_ended(made, 0, "5 images", "5 classes", "1 members of the source", "were left out")
    assert "\x1b" not in made.output + made.errors
    classes = json.loads((bench.directory / "data" / "odd" / "train" / "dataset.json").read_text())[
        "class_names"
    ]
    assert classes == ["-dash", "a b", "new\\nline", "\\udce9\\udcff", "🎨"]
    trained = fork(bench, *TWO_STEPS, "--data", ODD, "--set", "model.classes=5")
    assert_ended(trained, 0)
    (folder / no_text).write_bytes(b"")
    refused = fork(bench, "prepare", "folder", ODD, "--size", "8")
    assert refused.exit_code() == 5
    assert "\\udce9\\udcff_1.png: an empty file" in refused.errors
    assert_sound(bench)


# ---- streams ----


@dataclass(frozen=True, kw_only=True)
class ClosedStream:
    """A standard stream is closed from the start, as after `>&-`."""

    name: str

    def arm(self) -> None:
        """Lay the trap."""
        os.close({"stdin": 0, "stdout": 1, "stderr": 2}[self.name])
        setattr(sys, self.name, None)


@dataclass(frozen=True, kw_only=True)
class ReaderWhoLeft:
    """Nobody reads stdout any more, as after `| head`."""

    def arm(self) -> None:
        """Lay the trap."""
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)


STREAMS: dict[str, Trouble] = {
    "no stdin": ClosedStream(name="stdin"),
    "no stdout": ClosedStream(name="stdout"),
    "no stderr": ClosedStream(name="stderr"),
    "nobody reads": ReaderWhoLeft(),
}


@pytest.mark.parametrize("stream", STREAMS)
def test_no_work_stops_for_a_stream(stream, bench):
    for line in (TWO_STEPS, SAMPLE if stream == "no stdout" else EVAL):
        assert_ended(fork(bench, *line, moment=STREAMS[stream]), 0)
    run = bench.run(2)
    assert json.loads((run / "status.json").read_text())["state"] == "completed"
    # what was opened has not taken the place of a stream
    assert all(b"run-2" not in path.read_bytes() for path in (run / "checkpoints").rglob("*.json"))
    assert_sound(bench)


def test_a_usage_error_without_stderr_keeps_its_code(bench):
    refused = fork(bench, *NEW, "--set", "training.lr=fast", moment=ClosedStream(name="stderr"))
    assert refused.exit_code() == 2
    assert refused.output == ""


@dataclass(frozen=True, kw_only=True)
class OnTerminal:
    """Both streams are a terminal."""

    path: str

    def arm(self) -> None:
        """Lay the trap."""
        terminal = os.open(self.path, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(terminal, descriptor)
        os.environ["TERM"] = "xterm"


@pytest.mark.parametrize("line", [TWO_STEPS, SAMPLE, EVAL], ids=["train", "sample", "eval"])
def test_twenty_columns_are_enough_for_long_work(line, bench):
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    shown: list[bytes] = []
    reader = Thread(target=read_all, args=(controller, shown))
    reader.start()
    running = fork(bench, *line, moment=OnTerminal(path=os.ttyname(terminal)))
    assert running.exit_code() == 0, shown
    os.close(terminal)
    reader.join()
    text = b"".join(shown).decode()
    assert "Traceback" not in text
    assert "next:" in text
    assert_sound(bench)


def read_all(controller: int, shown: list[bytes]) -> None:
    # Linux raises an error when the last process has closed the terminal
    with contextlib.suppress(OSError):
        while received := os.read(controller, 65536):
            shown.append(received)
    os.close(controller)


# ---- languages ----


def test_training_works_in_the_language_c(bench):
    environment = shell_environment(LC_ALL="C", LANG="C")
    done = run_in(environment, *TWO_STEPS, "--name", "größe ✓", directory=bench.directory)
    assert done.returncode == 0, done.stderr
    assert b"run-2\tcompleted" in done.stdout
    listed = listed_runs(bench)
    assert "größe ✓" in [run["name"] for run in listed]
    assert_sound(bench)
