"""How diffcli behaves on the two streams, on narrow and dumb terminals, in pipes, and at its end."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

import diffcli
from diffcli_process import Ended, ended, run_diffcli, shell_environment
from runs_in_processes import options

ESCAPES = "\x1b"
FULL_DEVICE = Path("/dev/full")
BOXES = set("─│╭╮╰╯┏┓┗┛━┃┡┩├┤┼")


def is_plain(text: str) -> bool:
    """No colour, no box, nothing that was cut."""
    return ESCAPES not in text and not BOXES & set(text) and "…" not in text


def run_on_terminal(*arguments, directory, columns, **changes) -> Ended:
    """Run diffcli with both streams on one terminal of so many columns."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "diffcli", *arguments],
        cwd=directory,
        env=shell_environment(COLUMNS=str(columns), LINES="24", **changes),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            received = os.read(controller, 65536)
        except OSError as error:
            # Linux says so when the last process has closed the terminal
            if error.errno != errno.EIO:
                raise
            break
        if not received:
            break
        shown += received
    os.close(controller)
    return Ended(status=process.wait(60), out=shown.decode(), err="")


# ---- the result, and everything else ----


def test_stdout_holds_the_result_and_nothing_else(workshop):
    assert workshop.prepared.out == "train\tdata/digits/train\ntest\tdata/digits/test\n"
    assert re.fullmatch(r"run-1\tcompleted\tstep 3/3\tloss \d\.\d+\n", workshop.trained.out)
    for word in (
        "training run-1 on",
        "step 1/3",
        "saved step 2",
        "saved step 3",
        "next: diffcli sample run-1",
    ):
        assert word in workshop.trained.err
    assert is_plain(workshop.prepared.err + workshop.trained.err)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("train", "--list-presets"), {"presets"}),
        (("runs", "ls"), {"runs", "total_runs"}),
        (("runs", "show", "latest"), {"row", "config", "metrics", "checkpoints", "samples"}),
        (("prepare", "digits"), {"name", "splits"}),
        (("prepare", "ls"), {"home", "datasets"}),
        (("prepare", "verify", "digits"), {"splits"}),
        (("prepare", "show", "digits", "--force"), {"row", "class_counts", "grid"}),
        (("train", "--preset", "./tiny.toml", "--dry-run"), {"settings", "parameters", "disk_bytes"}),
        (("sample", "run-1", "--num", "2"), {"run", "archive", "grid", "record"}),
    ],
)
def test_json_is_one_object_with_a_schema_number(arguments, told, workshop):
    done = run_diffcli(*arguments, "--json", directory=workshop.directory)
    assert done.status == 0, done.err
    assert done.json["schema"] == 1
    assert told <= set(done.json)
    assert is_plain(done.err)
    for part in {"archive", "grid", "record"} & set(done.json):
        assert (workshop.directory / done.json[part]).is_file()


# ---- not a terminal: nothing is drawn, nothing is cut ----


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("sample", "--help"),
        ("runs", "ls"),
        ("runs", "show", "run-1"),
        ("train", "--list-presets"),
        ("train", "--presett", "x"),
        ("runs", "show", "run-77"),
        ("prepare", "ls"),
        ("prepare", "show", "digits", "--force"),
        ("prepare", "show", "digts"),
    ],
)
def test_pipes_get_plain_text_whatever_the_width(arguments, workshop):
    narrow = run_diffcli(*arguments, directory=workshop.directory, COLUMNS="20", FORCE_COLOR="1")
    assert is_plain(narrow.out + narrow.err)
    wide = run_diffcli(*arguments, directory=workshop.directory, COLUMNS="200")
    assert [steady(line) for line in narrow.out.splitlines()] == [
        steady(line) for line in wide.out.splitlines()
    ]
    assert narrow.err == wide.err


def steady(line: str) -> str:
    """A line without what changes from one second to the next."""
    return re.sub(r"\d+ s( ago)?\b|\d+ min", "", line)


def test_a_plan_is_plain_too(workshop):
    arguments = ("train", "--preset", "./tiny.toml", "--dry-run")
    plan = run_diffcli(*arguments, directory=workshop.directory, COLUMNS="20")
    assert plan.status == 0, plan.err
    assert is_plain(plan.out + plan.err)
    assert "training.steps\t3\tpreset ./tiny.toml\n" in plan.out
    assert not (workshop.directory / "runs" / "run-2").exists()


def test_rows_are_whole(workshop):
    listed = run_diffcli("runs", "ls", directory=workshop.directory, COLUMNS="20").out.splitlines()
    assert listed[0].split("\t")[:4] == ["id", "name", "preset", "state"]
    assert listed[1].split("\t")[:5] == ["run-1", "größe ✓", "tiny", "completed", "3/3"]
    presets = run_diffcli("train", "--list-presets", directory=workshop.directory, COLUMNS="20").out
    assert "digits\thandwritten digits 8x8, class-conditional, for a first run\n" in presets


# ---- a terminal ----


@pytest.mark.parametrize(
    "arguments",
    [("runs", "ls"), ("runs", "show", "run-1"), ("train", "--list-presets"), ("runs", "ls", "--help")],
)
def test_twenty_columns_are_enough(arguments, workshop):
    shown = run_on_terminal(*arguments, directory=workshop.directory, columns=20)
    assert shown.status == 0, shown.out
    lines = [re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", line) for line in shown.out.splitlines()]
    assert all(len(line) <= 20 for line in lines if "next:" not in line), lines
    assert any("run-1" in line or "digits" in line or "Usage" in line for line in lines)


def test_training_is_watched_live(workshop, tmp_path):
    samples = options("training.eval_every=3", "training.eval_samples=4", "training.eval_steps=2")
    arguments = ("train", "--preset", "./tiny.toml", "--runs", str(tmp_path), *samples)
    shown = run_on_terminal(*arguments, directory=workshop.directory, columns=72)
    assert shown.status == 0, shown.out
    assert ESCAPES in shown.out
    # the bar, the table of quartiles, the speed, a checkpoint, what to do next, and the cursor again
    told = " ".join(shown.out.split())
    for words in (
        "3/3",
        "100%",
        "q3",
        "images/s",
        "fd_pixels",
        "at step 3",
        "next save step 3",
        "saved step 3",
        "next: diffcli sample",
    ):
        assert words in told
    assert "\x1b[?25h" in told


def test_a_classifier_is_watched_by_its_accuracies(workshop, tmp_path):
    settings = options("model.kind=classifier", "data.validation_split=test", "training.eval_every=2")
    arguments = ("train", "--preset", "./tiny.toml", "--runs", str(tmp_path), *settings)
    shown = run_on_terminal(*arguments, directory=workshop.directory, columns=80)
    assert shown.status == 0, shown.out
    told = " ".join(shown.out.split())
    for words in ("acc@1", "acc@5", "val loss", "val acc@1", "val acc@5", "at step 3"):
        assert words in told
    assert "next: diffcli sample RUN --classifier run-1" in told


def test_no_color_and_dumb_terminals_are_honoured(workshop):
    colour = re.compile(r"\x1b\[[\d;]*3[1-7]m")
    arguments = ("runs", "show", "run-77")
    in_colour = run_on_terminal(*arguments, directory=workshop.directory, columns=80)
    without = run_on_terminal(*arguments, directory=workshop.directory, columns=80, NO_COLOR="1")
    dumb = run_on_terminal(*arguments, directory=workshop.directory, columns=80, TERM="dumb")
    assert colour.search(in_colour.out)
    assert not colour.search(without.out)
    assert is_plain(dumb.out)
    assert is_plain(run_on_terminal("runs", "ls", directory=workshop.directory, columns=80, TERM="dumb").out)


# ---- languages and encodings ----


def test_any_locale_will_do(workshop):
    for changes in ({"LANG": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}):
        for arguments in (("runs", "ls"), ("runs", "show", "run-1"), ("runs", "ls", "--json")):
            done = run_diffcli(*arguments, directory=workshop.directory, **changes)
            assert done.status == 0, done.err
            assert "gr" in done.out
    assert run_diffcli("runs", "ls", "--json", directory=workshop.directory, PYTHONIOENCODING="ascii").json[
        "runs"
    ][0]["name"] == ("größe ✓")


def test_file_names_that_are_no_text(workshop, tmp_path):
    odd = os.fsdecode(b"caf\xe9 \n\x1b[31m")
    done = run_diffcli("runs", "ls", "--runs", odd, directory=tmp_path)
    assert done.status == 0, done.err
    assert ESCAPES not in done.out + done.err
    (tmp_path / odd).symlink_to(workshop.directory / "runs")
    shown = run_diffcli("runs", "show", "run-1", "--runs", odd, directory=tmp_path)
    assert shown.status == 0, shown.err
    assert ESCAPES not in shown.out + shown.err
    as_json = run_diffcli("runs", "show", "run-1", "--runs", odd, "--json", directory=tmp_path)
    assert as_json.json["directory"] == f"{odd.encode(errors='backslashreplace').decode()}/run-1"
    missing = run_diffcli("runs", "show", "run-77", "--runs", odd, directory=tmp_path)
    assert missing.status == 3
    assert ESCAPES not in missing.err


def test_no_home_is_needed(workshop):
    environment = {name: value for name, value in shell_environment().items() if name not in ("HOME", "USER")}
    done = subprocess.run(
        [sys.executable, "-m", "diffcli", "runs", "ls"],
        cwd=workshop.directory,
        env=environment,
        capture_output=True,
        check=True,
    )
    assert b"run-1" in done.stdout


# ---- streams that are closed or full ----


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("runs", "ls"), ("train", "--list-presets", "--json")])
def test_a_reader_who_leaves_is_no_error(arguments, unbuffered, workshop):
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "diffcli", *arguments],
        cwd=workshop.directory,
        env=shell_environment(PYTHONUNBUFFERED=unbuffered),
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (0, b"")


@pytest.mark.parametrize(("closed", "kept"), [(">&-", "err"), ("2>&-", "out"), ("<&-", "out")])
def test_a_stream_may_be_closed_from_the_start(closed, kept, workshop):
    whole = run_diffcli("train", "--list-presets", directory=workshop.directory)
    done = ended(
        subprocess.run(
            ["sh", "-c", f'exec "$0" -m diffcli train --list-presets {closed}', sys.executable],
            cwd=workshop.directory,
            env=shell_environment(),
            capture_output=True,
            check=False,
        )
    )
    assert done.status == 0, done.err
    assert getattr(done, kept) == getattr(whole, kept)
    assert done.out in ("", whole.out)
    assert done.err in ("", whole.err)


@pytest.mark.skipif(not FULL_DEVICE.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_result_that_cannot_be_written_is_an_error(unbuffered, workshop):
    with FULL_DEVICE.open("w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "diffcli", "runs", "ls"],
            cwd=workshop.directory,
            env=shell_environment(PYTHONUNBUFFERED=unbuffered),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert process.returncode == 6
    assert process.stderr == "error: cannot write the result: no space left on device\n  stdout\n"


# ---- ends ----


def test_an_unknown_option_is_a_usage_error_on_stderr(workshop):
    done = run_diffcli("train", "--presett", "digits", directory=workshop.directory)
    assert (done.status, done.out) == (2, "")
    assert "Usage: diffcli train" in done.err
    assert "--preset" in done.err
    assert run_diffcli("trian", directory=workshop.directory).status == 2


def test_the_version(tmp_path):
    done = run_diffcli("--version", directory=tmp_path)
    assert (done.status, done.out, done.err) == (0, f"diffcli {diffcli.__version__}\n", "")


def test_debug_shows_the_traceback_of_an_error(workshop):
    for line in (
        ("runs", "show", "run-77"),
        ("runs", "show", "run-77", "--debug"),
        ("--debug", "runs", "show", "run-77"),
    ):
        done = run_diffcli(*line, directory=workshop.directory)
        assert (done.status, done.out) == (3, "")
        assert ("Traceback" in done.err) == ("--debug" in line)
        assert "error: there is no run 'run-77'" in done.err


FAULTY = """
import sys
from diffcli.cli.handler import run
def app(arguments):
    print("half a result")
    {body}
sys.exit(run(app, sys.argv[1:]))
"""


def run_faulty(body, *arguments, directory, **changes) -> Ended:
    program = [sys.executable, "-c", FAULTY.format(body=body), *arguments]
    return ended(
        subprocess.run(
            program, cwd=directory, env=shell_environment(**changes), capture_output=True, check=False
        )
    )


def test_a_bug_is_told_shortly(tmp_path):
    body = "raise ZeroDivisionError('one line\\n' + 'and many more\\n' * 50)"
    done = run_faulty(body, directory=tmp_path)
    assert done.status == 70
    assert done.out == "half a result\n"
    assert done.err.startswith("error: ZeroDivisionError: one line\n  at <string>:6\n")
    assert len(done.err.splitlines()) == 3
    assert "--debug" in done.err
    shown = run_faulty(body, "--debug", directory=tmp_path)
    assert shown.status == 70
    assert "Traceback" in shown.err
    assert shown.err.count("ZeroDivisionError") == 1


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("open('/nowhere/at/all')", 6, "error: no such file or directory\n  /nowhere/at/all\n"),
        ("raise OSError(2, 'No room anywhere')", 6, "error: no room anywhere\n"),
        ("raise MemoryError", 1, "error: there is not enough memory\n"),
        (
            "raise RuntimeError('CUDA out of memory. Tried to allocate')",
            1,
            "error: there is not enough memory\n",
        ),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("sys.exit('no number')", 1, ""),
        ("sys.exit(5)", 5, ""),
        ("sys.exit()", 0, ""),
    ],
)
def test_other_ends(body, status, message, tmp_path):
    done = run_faulty(body, directory=tmp_path)
    assert done.status == status
    assert done.err.startswith(message)
    assert "Traceback" not in done.err


def test_of_many_processes_the_others_say_one_line(tmp_path):
    body = "from diffcli.errors import UsageError; raise UsageError('a', where='b', remedy='c')"
    assert run_faulty(body, directory=tmp_path).err == "error: a\n  b\n  c\n"
    assert run_faulty(body, directory=tmp_path, RANK="3").err == "rank 3: a; b; c\n"
    of_many_images = body.replace("'b'", r"'first.png\nsecond.png'")
    assert run_faulty(of_many_images, directory=tmp_path, RANK="3").err == "rank 3: a; first.png; c\n"


def test_json_can_be_read_back(workshop):
    shown = run_diffcli("runs", "show", "run-1", "--json", directory=workshop.directory).out
    assert json.loads(shown)["row"]["name"] == "größe ✓"
    assert "größe" in shown
