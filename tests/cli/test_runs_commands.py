"""`diffcli runs` as a user and a shell meet it: streams, exit codes, terminals."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from diffcli.config.encode import config_to_json
from diffcli.config.sections import RunConfig
from diffcli.registry.create import NewRun, Run, create_run
from diffcli.registry.lock import acquire_lock
from diffcli.registry.metrics import LoggedRow, append_metrics
from diffcli.registry.provenance import installed_versions
from diffcli.registry.run_record import Attempt, DatasetFacts, SettingChange, write_attempt
from diffcli.registry.status import read_status, write_status
from runs_on_disk import metrics
from runs_program import EXIT, PROGRAM, environment, on_terminal, runs

_HEADER = "id\tname\tpreset\tstate\tstep\tloss\tage\tsize\tpinned"
_ESCAPE = "\033["


def _spec(name: str) -> NewRun:
    return NewRun(
        name=name,
        preset="digits",
        command_line=("diffcli", "train", "--preset", "digits", "--name", name),
        config=config_to_json(RunConfig()),
        total_steps=2000,
        versions=installed_versions(),
        git_commit=None,
        dataset=DatasetFacts(
            path="data/digits/train",
            content_hash="ab" * 32,
            weak_hash=True,
            count=1500,
            class_names=("zero", "one"),
        ),
    )


def _finish(run: Run) -> None:
    """What a training of 2000 steps leaves behind."""
    for step in range(10, 2001, 10):
        append_metrics(run.paths.metrics, LoggedRow(attempt=1, row=metrics(step)))
    status = read_status(run.paths)
    write_status(run.paths, dataclasses.replace(status, state="completed", step=2000, exit_code=0))
    for step, files in ((1000, ("model.safetensors",)), (2000, ("model.safetensors", "manifest.json"))):
        directory = run.paths.checkpoints / f"step-{step:06d}"
        directory.mkdir(parents=True)
        for name in files:
            (directory / name).write_bytes(b"x" * 500)
    (run.paths.samples / "first").mkdir(parents=True)
    (run.paths.samples / "first" / "samples_100x8x8x1.npz").write_bytes(b"x")
    run.paths.evaluations.mkdir()
    (run.paths.evaluations / "nll.json").write_text("{}")
    attempt = Attempt(
        number=1,
        started_at=datetime.now(UTC),
        first_step=0,
        changes=(SettingChange(key="training.steps", before=1000, after=2000),),
        world_size=2,
        device="cpu",
        threads=1,
        precision="fp32",
        versions=installed_versions(),
        host="here",
        pid=42,
    )
    write_attempt(run.paths, attempt)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Three runs: a finished one, a new one, and one whose status is broken."""
    home = tmp_path / "runs"
    _finish(create_run(home, _spec("first")))
    create_run(home, _spec("second"))
    broken = create_run(home, _spec("third"))
    broken.paths.status.write_text('{"schema": 1,')
    return home


def test_a_pipe_gets_tab_separated_rows_newest_first(home: Path) -> None:
    ended = runs(home, "ls")
    assert ended.returncode == 0
    header, *rows = ended.stdout.splitlines()
    assert header == _HEADER
    cells = [row.split("\t") for row in rows]
    assert [row[:4] for row in cells] == [
        ["run-3", "", "", "unreadable"],
        ["run-2", "second", "digits", "created"],
        ["run-1", "first", "digits", "completed"],
    ]
    assert cells[2][4:6] == ["2000/2000", "0.0005"]
    assert re.fullmatch(r"\d+ s", cells[2][6])
    assert re.fullmatch(r"[\d.]+ kB", cells[2][7])
    assert _ESCAPE not in ended.stdout
    assert "run-3: " in ended.stderr
    assert "status.json" in ended.stderr


def test_a_list_can_be_short(home: Path) -> None:
    ended = runs(home, "ls", "-n", "1")
    assert [row.split("\t")[0] for row in ended.stdout.splitlines()[1:]] == ["run-3"]
    assert "2 older runs are not shown" in ended.stderr
    assert len(runs(home, "ls", "--all").stdout.splitlines()) == 4


def test_a_list_as_json_is_one_object_with_a_schema(home: Path) -> None:
    ended = runs(home, "ls", "--json")
    listing = json.loads(ended.stdout)
    assert set(listing) == {"schema", "home", "total_runs", "runs"}
    assert (listing["schema"], listing["home"], listing["total_runs"]) == (1, str(home), 3)
    assert [run["id"] for run in listing["runs"]] == ["run-3", "run-2", "run-1"]
    assert set(listing["runs"][0]) == {
        "id",
        "name",
        "preset",
        "state",
        "reason",
        "step",
        "total_steps",
        "loss",
        "created_at",
        "age_seconds",
        "pinned",
        "pinned_steps",
        "size_bytes",
    }
    finished = listing["runs"][2]
    assert (finished["state"], finished["step"], finished["loss"]) == ("completed", 2000, 0.0005)
    assert finished["size_bytes"] > 1500
    assert datetime.fromisoformat(finished["created_at"]).tzinfo is not None
    assert listing["runs"][0]["reason"]


def test_an_empty_home_is_no_error(tmp_path: Path) -> None:
    ended = runs(tmp_path / "nothing", "ls")
    assert (ended.returncode, ended.stdout) == (0, f"{_HEADER}\n")
    assert "diffcli train" in ended.stderr
    assert json.loads(runs(tmp_path / "nothing", "ls", "--json").stdout)["runs"] == []


def test_the_runs_directory_is_the_flag_then_the_variable_then_here(home: Path, tmp_path: Path) -> None:
    flagged = runs(tmp_path / "nothing", "ls", "--runs", str(home))
    assert len(flagged.stdout.splitlines()) == 4
    here = subprocess.run(
        [sys.executable, "-c", PROGRAM + EXIT, "ls"],
        cwd=home.parent,
        env={name: value for name, value in os.environ.items() if name not in ("DIFFCLI_RUNS", "HOME")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(here.stdout.splitlines()) == 4


def test_show_tells_everything_as_rows(home: Path) -> None:
    ended = runs(home, "show", "first")
    assert ended.returncode == 0
    facts = [tuple(line.split("\t")) for line in ended.stdout.splitlines()]
    assert {len(fact) for fact in facts} == {3}
    known = {(part, name): value for part, name, value in facts}
    assert known["run", "id"] == "run-1"
    assert known["run", "state"] == "completed"
    assert known["run", "command"] == "diffcli train --preset digits --name first"
    assert known["dataset", "hash"].endswith("(weak: names and sizes only)")
    assert known["config", "training.batch_size"] == "128"
    assert known["config", "model.attention_resolutions"] == "[16, 8]"
    assert known["config", "diffusion.schedule"] == '"linear"'
    assert known["metrics", "step"] == "2000"
    assert known["metrics", "loss"] == "0.0005"
    assert known["metrics", "loss_q3"] == "0.1"
    assert ("metrics", "loss_q1") not in known
    assert known["metrics", "loss so far"].startswith("█")
    assert known["checkpoints", "step 1000"] == "500 B, incomplete"
    assert known["checkpoints", "step 2000"] == "1.0 kB"
    assert "samples_100x8x8x1.npz" in known["samples", "first"]
    assert known["evals", "nll"].endswith("nll.json")
    assert "training.steps = 2000 (was 1000)" in known["attempts", "1"]
    settings = {
        f"{section}.{name}" for section, values in config_to_json(RunConfig()).items() for name in values
    }
    assert {name for part, name, _ in facts if part == "config"} == settings


def test_show_as_json_is_one_object_with_a_schema(home: Path) -> None:
    shown = json.loads(runs(home, "show", "run-1", "--json").stdout)
    assert shown["schema"] == 1
    assert shown["row"]["id"] == "run-1"
    assert [checkpoint["complete"] for checkpoint in shown["checkpoints"]] == [False, True]
    series = shown["loss_series"]
    assert len(series["steps"]) == len(series["values"]) <= 60
    assert series["steps"][-1] == 2000
    assert series["values"] == sorted(series["values"], reverse=True)


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("show", "secnod"), 3, "did you mean second"),
        (("show", "run-7"), 3, "did you mean"),
        (("show", "run-3"), 5, "run.json"),
        (("rm", "run-1"), 2, "--yes"),
        (("rm", "run-1", "nothing", "--yes"), 3, "there is no run 'nothing'"),
        (("restore", "run-1"), 3, "in the trash"),
        (("ls", "-n", "0"), 2, "-n"),
        (("ls", "--runs", __file__), 6, "cannot read"),
    ],
)
def test_a_wrong_request_ends_with_its_code_and_a_few_lines(
    home: Path, arguments: tuple[str, ...], status: int, told: str
) -> None:
    if arguments == ("show", "run-3"):
        (home / "run-3" / "run.json").write_text("{}")
    ended = runs(home, *arguments)
    assert (ended.returncode, ended.stdout) == (status, "")
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(list(home.glob("run-*"))) == 3


def test_a_run_whose_status_is_broken_is_shown_as_far_as_it_goes(home: Path) -> None:
    ended = runs(home, "show", "run-3")
    assert ended.returncode == 0
    assert "run\tstate\tunreadable: " in ended.stdout
    assert "config\ttraining.batch_size\t128" in ended.stdout


def test_removal_restoration_and_purge(home: Path) -> None:
    removed = runs(home, "rm", "first", "run-2", "run-1", "--yes")
    assert (removed.returncode, removed.stdout) == (0, "run-1\nrun-2\n")
    assert "diffcli runs restore run-1" in removed.stderr
    restored = runs(home, "restore", "run-1")
    assert (restored.returncode, restored.stdout) == (0, f"{home / 'run-1'}\n")
    assert runs(home, "purge").returncode == 2
    purged = runs(home, "purge", "--yes")
    assert (purged.returncode, purged.stdout) == (0, "run-2\n")
    assert runs(home, "purge").returncode == 0
    assert [path.name for path in sorted(home.glob("run-*"))] == ["run-1", "run-3"]


def test_a_run_in_use_is_not_removed(home: Path) -> None:
    with acquire_lock(create_run(home, _spec("busy")).paths):
        ended = runs(home, "rm", "busy", "--yes")
    assert ended.returncode == 4
    assert f"in use by {os.getpid()}@" in ended.stderr
    assert (home / "run-4").is_dir()


@pytest.mark.parametrize(("typed", "status", "left"), [("y\n", 0, 2), ("n\n", 1, 3)])
def test_a_terminal_is_asked_before_removal(home: Path, typed: str, status: int, left: int) -> None:
    ended, shown = on_terminal(home, "rm", "run-2", typed=typed)
    assert "Move run-2 to the trash?" in shown
    assert ended == status
    assert len(list(home.glob("run-*"))) == left


def test_a_terminal_gets_a_table(home: Path) -> None:
    status, shown = on_terminal(home, "ls", COLUMNS="120")
    assert status == 0
    assert "\t" not in shown
    assert _ESCAPE in shown
    assert "run-1  first" in re.sub(r"\033\[[\d;]*m", "", shown)
    status, shown = on_terminal(home, "show", "run-1", COLUMNS="80")
    assert status == 0
    assert "█" in shown


def test_no_color_is_honoured(home: Path) -> None:
    _, shown = on_terminal(home, "ls", COLUMNS="120", NO_COLOR="1")
    assert not re.search(r"\033\[(3|4|9)\d", shown)


def test_a_plain_terminal_gets_plain_rows(home: Path) -> None:
    _, shown = on_terminal(home, "ls", TERM="dumb")
    assert _ESCAPE not in shown
    assert shown.splitlines()[0] == _HEADER


def test_twenty_columns_leave_out_whole_columns_and_cut_none(home: Path) -> None:
    _, shown = on_terminal(home, "ls", COLUMNS="20", NO_COLOR="1")
    lines = [line.rstrip() for line in re.sub(r"\033\[[\d;]*m", "", shown).splitlines()]
    assert lines[:4] == ["id     state", "run-3  unreadable", "run-2  created", "run-1  completed"]


def test_a_name_cannot_move_the_cursor_or_break_a_row(home: Path) -> None:
    run = create_run(home, _spec("fourth"))
    record = json.loads(run.paths.annotations.read_text())
    run.paths.annotations.write_text(json.dumps({**record, "name": "\033[2Ja\tb\nc [red]\udcff"}))
    for shown in (runs(home, "ls", "-n", "1").stdout, on_terminal(home, "ls", "-n", "1", COLUMNS="120")[1]):
        assert r"\x1b[2Ja\tb\nc [red]\udcff" in shown


def test_a_terminal_without_unicode_gets_an_ascii_sparkline(home: Path) -> None:
    ended = runs(home, "show", "run-1", PYTHONIOENCODING="ascii")
    assert ended.returncode == 0
    (line,) = (line for line in ended.stdout.splitlines() if "loss so far" in line)
    assert line.split("\t")[2].startswith("#")


def test_a_reader_that_leaves_early_sees_no_traceback(home: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM + EXIT, "show", "run-1"],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        complaint = process.stderr.read()
    assert complaint == ""
    assert process.returncode == 0


def test_reading_commands_write_nothing(home: Path) -> None:
    before = sorted(home.rglob("*"))
    for arguments in (("ls",), ("show", "run-1"), ("ls", "--json")):
        assert runs(home, *arguments).returncode == 0
    assert sorted(home.rglob("*")) == before


def test_lists_load_neither_torch_nor_rich(home: Path) -> None:
    ending = "print(sorted({'torch', 'numpy', 'rich', 'accelerate'} & set(sys.modules)), file=sys.stderr)"
    ended = runs(home, "ls", "-n", "2", ending=ending)
    assert ended.stderr.splitlines()[-1] == "[]"
