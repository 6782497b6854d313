"""`eval --sweep` in real processes: its points are ordinary evaluations, and what is done stays done."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from signal import SIGKILL, SIGTERM

import numpy as np
import pytest

from diffcli.commands.evaluation_reference import ReferenceChoice
from diffcli.commands.extractors import ExtractorChoice
from diffcli.commands.image_evaluation_request import ImageEvaluationRequest
from diffcli.commands.image_metric_names import parse_metrics
from diffcli.commands.sweep import SweepRequest, sweep
from diffcli.commands.sweep_axes import parse_axes, spanned
from diffcli.records.sweeps import SweepSettings
from diffcli_process import shell_environment
from latent_runs import drawing
from runs_in_processes import Bench, fork, fork_ranks, leftovers, make_bench, wait_until
from runs_on_disk import run_of_a_network
from sampling_requests import Quiet, sample_request

MACHINE = ("--device", "cpu", "--threads", "1")
BASE = ("eval", "run-1", "--features", "pixels", "--num", "24", "--batch-size", "8", *MACHINE)
SWEEP = (*BASE, "--sweep", "steps=2,4", "solver=ancestral,ddim")
METRICS = ["fd_pixels", "kd_pixels", "precision_pixels", "recall_pixels"]


def bench_with_a_run(directory: Path) -> Bench:
    made = make_bench(directory)
    run_of_a_network(made.runs, drawing(8, classes=0), "plain")
    return made


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    """Digits, and a run of a network that was not trained."""
    return bench_with_a_run(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Bench:
    """The same once more, where nothing was swept."""
    return bench_with_a_run(tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="module")
def swept(bench):
    """The JSON result of a sweep."""
    return json_of(bench, *SWEEP)


def json_of(bench, *arguments, **settings):
    return json.loads(fork(bench, *arguments, "--json", **settings).succeeds().output)


def rows_of(bench, *arguments):
    lines = fork(bench, *arguments).succeeds().output.splitlines()
    return [line.split("\t") for line in lines]


def written(run: Path) -> dict[Path, int]:
    """When the archives and records of a run were written."""
    paths = [*run.glob("samples/*/*.npz"), *run.glob("evals/*.json")]
    return {path: path.stat().st_mtime_ns for path in paths}


def test_points_are_in_the_order_of_the_axes_and_have_their_cost(bench, swept):
    record = json.loads((bench.directory / swept["path"]).read_text())
    assert (record["schema"], record["kind"], record["run"], record["checkpoint"]) == (1, "sweep", "run-1", 1)
    assert record["axes"] == [
        {"name": "steps", "values": ["2", "4"]},
        {"name": "solver", "values": ["ancestral", "ddim"]},
    ]
    assert record["points"] == swept["points"]
    places = [
        (point["settings"]["steps"], point["settings"]["solver"], point["model_calls"])
        for point in swept["points"]
    ]
    assert places == [(2, "ancestral", 2), (2, "ddim", 2), (4, "ancestral", 4), (4, "ddim", 4)]
    for point in swept["points"]:
        assert (point["settings"]["seed"], point["settings"]["eta"]) == (None, None)
        evaluation = json.loads((bench.run() / "evals" / f"{point['evaluation']}.json").read_text())
        assert evaluation["metrics"] == point["metrics"]
        assert evaluation["sampling"]["solver"] == point["settings"]["solver"]
        archive = json.loads((Path(evaluation["samples"]["location"]).parent / "sample.json").read_text())
        assert (archive["drawn"], archive["count"]) == (24, 24)
        assert point["seconds_per_image"] == archive["seconds"] / 24
    assert leftovers(bench.run()) == []


@pytest.mark.parametrize(("number", "flags"), [(0, ("--steps", "2")), (3, ("--ddim", "4"))])
def test_a_point_is_what_eval_gives_by_itself(swept, elsewhere, number, flags):
    plain = json_of(elsewhere, *BASE, *flags)
    point = swept["points"][number]
    assert point["metrics"] == plain["metrics"]
    assert (point["evaluation"], point["fingerprint"]) == (plain["name"], plain["fingerprint"])


def test_eval_by_itself_finds_the_point_done(bench, swept):
    assert json_of(bench, *BASE, "--ddim", "2")["already_there"]


def test_the_same_sweep_again_draws_and_writes_nothing(bench, swept):
    before = written(bench.run())
    again = json_of(bench, *SWEEP)
    assert again["already_there"]
    assert again["points"] == swept["points"]
    # the axes may as well be given one by one
    other = json_of(bench, *BASE, "--sweep", "steps=2,4", "--sweep", "solver=ancestral,ddim")
    assert other["path"] == swept["path"]
    assert written(bench.run()) == before


def test_pipes_get_a_row_for_each_point(bench, swept):
    header, *rows = rows_of(bench, *SWEEP)
    assert header == ["steps", "solver", "model_calls", "seconds_per_image", *METRICS]
    assert [row[:3] for row in rows] == [
        ["2", "ancestral", "2"],
        ["2", "ddim", "2"],
        ["4", "ancestral", "4"],
        ["4", "ddim", "4"],
    ]
    for row, point in zip(rows, swept["points"], strict=True):
        assert float(row[3]) == pytest.approx(point["seconds_per_image"], rel=1e-3)
        values = [metric["value"] for metric in point["metrics"]]
        assert [float(cell) for cell in row[4:]] == pytest.approx(values, rel=1e-3)


def test_a_terminal_gets_a_table(bench, swept):
    reader, terminal = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "diffcli", *SWEEP],
        cwd=bench.directory,
        env=shell_environment(COLUMNS="120", NO_COLOR="1"),
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        timeout=120,
        check=True,
    )
    os.close(terminal)
    # all of it fits into what a terminal keeps for its reader
    header, *rows = re.sub(r"\x1b\[\d*m", "", os.read(reader, 4096).decode()).splitlines()
    os.close(reader)
    assert header.split() == ["steps", "solver", "model", "calls", "s/image", *METRICS]
    assert [row.split()[:3] for row in rows] == [
        ["2", "ancestral", "2"],
        ["2", "ddim", "2"],
        ["4", "ancestral", "4"],
        ["4", "ddim", "4"],
    ]
    assert not any("\t" in row for row in rows)


def test_seeds_have_a_mean_and_a_standard_deviation(bench):
    line = (*BASE, "--ddim", "2", "--sweep", "seed=0,1,2")
    told = json_of(bench, *line)
    (spread,) = told["spreads"]
    assert spread["seeds"] == [0, 1, 2]
    for number, metric in enumerate(spread["metrics"]):
        values = [point["metrics"][number]["value"] for point in told["points"]]
        assert len(set(values)) > 1 or metric["name"] == "precision_pixels"
        assert metric["count"] == 3
        assert metric["mean"] == pytest.approx(statistics.fmean(values))
        assert metric["deviation"] == pytest.approx(statistics.pstdev(values), abs=1e-9)
    header, *rows = rows_of(bench, *line)
    assert header[:2] == ["seed", "model_calls"]
    assert [row[0] for row in rows] == ["0", "1", "2", "3 seeds"]
    mean, deviation = map(float, rows[-1][3].split(" +- "))
    assert mean == pytest.approx(spread["metrics"][0]["mean"], rel=1e-3)
    assert deviation == pytest.approx(spread["metrics"][0]["deviation"], rel=1e-3)


def test_what_means_nothing_at_a_point_is_named_once_and_left_out(bench):
    process = fork(bench, *BASE, "--sweep", "eta=0,0.5", "solver=ancestral,ddim", "steps=2", "--json")
    told = json.loads(process.succeeds().output)
    places = [(point["settings"]["solver"], point["settings"]["eta"]) for point in told["points"]]
    assert places == [("ancestral", None), ("ddim", 0.0), ("ddim", 0.5)]
    assert process.errors.count("at the points of ancestral sampling it is left out") == 1
    assert len(told["remarks"]) == 1


def test_the_time_of_a_part_is_not_the_time_of_all(bench):
    flags = ("--seed", "5", "--batch-size", "8", *MACHINE)
    fork(bench, "sample", "run-1", "--ddim", "3", "--num", "8", *flags).succeeds()
    told = json_of(bench, *BASE, "--sweep", "steps=3", "solver=ddim", "seed=5,6")
    assert told["points"][0]["seconds_per_image"] is None
    assert told["points"][1]["seconds_per_image"] > 0
    assert told["spreads"][0]["seconds_per_image"] is None
    _, first, *_ = rows_of(bench, *BASE, "--sweep", "steps=3", "solver=ddim", "seed=5,6")
    assert first[:5] == ["3", "ddim", "5", "3", ""]


@pytest.mark.parametrize(("number", "seed", "code"), [(SIGTERM, "11", 143), (SIGKILL, "12", -9)])
def test_a_stopped_sweep_goes_on_from_the_points_that_are_done(bench, number, seed, code):
    line = (*BASE, "--seed", seed, "--sweep", "steps=2,3,4,10,20")
    process = fork(bench, *line, "--json")
    done = f"pixels-step-000001-*-seed-{seed}-n-24-*.json"
    wait_until(lambda: len(list((bench.run() / "evals").glob(done))) > 1, process)
    process.send(number)
    assert process.exit_code() == code
    if number == SIGTERM:
        assert "the same command goes on from there" in process.errors
    assert not process.output
    before = written(bench.run())
    records = set((bench.run() / "evals").glob(done))
    assert 2 <= len(records) < 5
    told = json_of(bench, *line)
    after = written(bench.run())
    assert {path: after[path] for path in before} == before
    assert [point["settings"]["steps"] for point in told["points"]] == [2, 3, 4, 10, 20]
    assert records < {bench.run() / "evals" / f"{point['evaluation']}.json" for point in told["points"]}
    assert leftovers(bench.run() / "evals") == []


def test_two_ranks_give_the_same_points(bench, elsewhere):
    line = (*BASE, "--seed", "21", "--sweep", "steps=2,4", "--json")
    both = fork_ranks(bench, 2, *line)
    for process in both:
        process.succeeds()
    (told,) = [json.loads(process.output) for process in both if process.output]
    alone = json_of(elsewhere, *line)
    for point, other in zip(told["points"], alone["points"], strict=True):
        assert point["metrics"] == other["metrics"]
        assert (point["processes"], other["processes"]) == (2, 1)


def test_a_name_that_is_taken_is_told_before_anything_is_drawn(bench, swept):
    name = swept["points"][0]["evaluation"]
    before = written(bench.run())
    process = fork(bench, *BASE, "--seed", "31", "--sweep", "steps=2,4", "--name", name)
    assert process.exit_code() == 2
    assert "is another evaluation" in process.errors
    assert written(bench.run()) == before


def test_a_sweep_of_other_samples_under_the_name_is_told_before_anything_is_drawn(bench):
    line = (*BASE, "--sweep", "steps=2", "--name", "named")
    json_of(bench, *line)
    before = written(bench.run())
    for changed in (("--num", "25"), ("--reference", "digits/test")):
        process = fork(bench, *line, *changed)
        assert process.exit_code() == 2
        assert "is another evaluation" in process.errors
        assert written(bench.run()) == before
    assert json_of(bench, *line)["already_there"]


REFUSALS = [
    (("steps=ten",), "steps cannot be 'ten'", "whole numbers"),
    (("steps=0",), "steps cannot be '0'", "at least 1"),
    (("steps=2,,4",), "'steps=2,,4' has an empty value", "VALUE,VALUE"),
    (("steps=",), "'steps=' names no values", "VALUE,VALUE"),
    (("step=2",), "there is no axis 'step'", "did you mean steps?"),
    (("steps=2", "run-1"), "'run-1' is no axis", "NAME=VALUE"),
    (("steps=2", "steps=4"), "the axis steps is given twice", "in one"),
    (("steps=2,99",), "sampling.steps = 99", "at steps 99"),
    (("solver=dimm",), "solver cannot be 'dimm'", "did you mean ddim?"),
    (("seed=-1",), "seed cannot be '-1'", "at least 0"),
    (("ema=nine",), "ema cannot be 'nine'", "none for the raw weights"),
    (("ema=none,0.5",), "sampling.ema = 0.5", "0.9"),
    (("eta=0.5",), "no point of the sweep is of DDIM", "solver=ddim"),
    (("eta=2", "solver=ddim"), "sampling.eta = 2.0", "from 0 to 1"),
    (("cfg=1,2",), "knows no classes", "--cfg"),
    (("guidance=1",), "none is given", "--classifier"),
    (("steps=2", "--ddim", "4"), "--sweep steps and --ddim exclude", "leave --ddim out"),
    (("solver=ddim", "--steps", "4"), "--sweep solver and --steps exclude", "--steps"),
    (("seed=1", "--seed", "0"), "--sweep seed and --seed exclude", "--seed"),
    (("ema=none", "--ema-std", "0.1"), "--sweep ema and --ema-std exclude", "--ema-std"),
    (("steps=2", "--set", "sampling.steps=4"), "--set sampling.steps exclude", "leave one"),
    (("steps=2", "--out", "x.json"), "--sweep and --out exclude", "--out"),
]


@pytest.mark.parametrize(("axes", "what", "advice"), REFUSALS, ids=[" ".join(axes) for axes, *_ in REFUSALS])
def test_what_cannot_be_meant_is_refused(bench, axes, what, advice):
    before = written(bench.run())
    process = fork(bench, *BASE, "--sweep", *axes)
    assert process.exit_code() == 2, process.errors
    assert what in process.errors
    assert advice in process.errors
    assert "Traceback" not in process.errors
    assert written(bench.run()) == before


def test_a_checkpoint_that_is_not_there_is_told_at_once(bench):
    process = fork(bench, *BASE, "--sweep", "ema=none,0.9", "--checkpoint", "7")
    assert process.exit_code() == 3
    assert "there is no checkpoint of step 7" in process.errors


def test_axes_without_sweep_and_a_sweep_of_images_are_refused(bench, tmp_path):
    process = fork(bench, *BASE, "steps=2")
    assert process.exit_code() == 2
    assert "--sweep steps=2" in process.errors
    np.savez(tmp_path / "some.npz", arr_0=np.zeros((4, 8, 8, 1), np.uint8))
    process = fork(bench, "eval", str(tmp_path / "some.npz"), "--sweep", "steps=2")
    assert process.exit_code() == 2
    assert "a sweep draws samples" in process.errors
    process = fork(bench, "eval", "run-1", "--nll", "--sweep", "steps=2")
    assert process.exit_code() == 2
    assert "--nll and --sweep exclude" in process.errors


# ---- in this process ----


class Training(Quiet):
    """A progress at whose second point another checkpoint of the run appears."""

    def __init__(self, checkpoints: Path) -> None:
        super().__init__()
        self._checkpoints = checkpoints

    def notice(self, text):
        super().notice(text)
        if text.startswith("point 2 of 2"):
            shutil.copytree(self._checkpoints / "step-000001", self._checkpoints / "step-000002")


def test_all_points_are_of_one_checkpoint(tmp_path):
    bench = bench_with_a_run(tmp_path)
    request = ImageEvaluationRequest(
        target="latest",
        sampling=sample_request(bench.runs, run="latest", ddim=2, seed=0),
        reference=ReferenceChoice(text="digits/train", data_home=bench.directory / "data"),
        metrics=parse_metrics("precision", "pixels"),
        extractor=ExtractorChoice(features="pixels", weights=None, runs_home=bench.runs),
        distances="float32",
        reference_num=100,
        batch_size=None,
        name=None,
        out=None,
        force=False,
    )
    progress = Training(bench.run() / "checkpoints")
    found = sweep(SweepRequest(axes=parse_axes(["seed=0,1"]), evaluation=request), progress).sweep
    assert (bench.run() / "checkpoints" / "step-000002").is_dir()
    assert found.checkpoint == 1
    for point in found.points:
        record = json.loads((bench.run() / "evals" / f"{point.evaluation}.json").read_text())
        assert record["model"]["checkpoint"] == 1


def test_values_that_are_the_same_are_one_point():
    axes = parse_axes(["steps=10,010, 25 ,10", "cfg=1,1.0"])
    assert [axis.values for axis in axes] == [("10", "010", "25"), ("1", "1.0")]
    assert spanned(axes) == (SweepSettings(steps=10, cfg=1.0), SweepSettings(steps=25, cfg=1.0))
