"""`runs ls --metric` and `runs show` of evaluations, as users, pipes and programs meet them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from evaluations_on_disk import bits_per_dim, fid, keep
from runs_on_disk import new_run, trained_run
from runs_program import on_terminal, runs


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Five runs: three alike, the third with fewer samples and steps, the fifth without an evaluation."""
    home = tmp_path / "runs"
    for number, value in enumerate((4.0, 3.0), start=1):
        run = trained_run(home, 100 * number, name=f"trial-{number}")
        keep(run, "fid", fid(value))
    keep(run, "nll", bits_per_dim(3.77123))
    quick = new_run(home, "quick")
    keep(quick, "fid", fid(20.0, samples=1000, steps=50))
    keep(new_run(home, "fourth"), "fid", fid(5.0))
    new_run(home, "fifth")
    return home


def column(shown: str, name: str) -> list[tuple[str, str]]:
    """Run and cell of each row."""
    header, *rows = (line.split("\t") for line in shown.splitlines())
    place = header.index(name)
    return [(row[0], row[place]) for row in rows]


def test_a_pipe_gets_a_column_for_each_metric_and_marks_with_their_meaning(home: Path) -> None:
    ended = runs(home, "ls", "--metric", "fid", "--metric", "bpd")
    assert ended.returncode == 0
    assert ended.stdout.splitlines()[0].endswith("\tpinned\tfid\tbits/dim")
    assert column(ended.stdout, "fid") == [
        ("run-5", ""),
        ("run-4", "5"),
        ("run-3", "20 a"),
        ("run-2", "3"),
        ("run-1", "4"),
    ]
    assert column(ended.stdout, "bits/dim")[3] == ("run-2", "3.7712")
    assert (
        "  a: samples 1000 in place of 10000; sampler ancestral-50 in place of ancestral-250\n"
        in ended.stderr
    )


def test_numbers_that_are_alike_need_no_note(home: Path) -> None:
    ended = runs(home, "ls", "-n", "2", "--metric", "fid")
    assert ended.stderr == "3 older runs are not shown (--all, -n)\n"


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (("--sort", "fid"), "2 1 4 3 5"),
        (("--sort", "fid", "--reverse"), "3 4 1 2 5"),
        (("--sort", "recall"), "3 4 2 1 5"),
        (("--sort", "bits/dim"), "2 5 4 3 1"),
        (("--sort", "bpd", "--reverse"), "2 5 4 3 1"),
        (("--sort", "loss"), "2 1 5 4 3"),
        (("--sort", "step"), "2 1 5 4 3"),
        (("--sort", "age"), "5 4 3 2 1"),
        (("--sort", "age", "--reverse"), "1 2 3 4 5"),
    ],
)
def test_the_best_come_first_and_runs_without_the_number_last(
    home: Path, order: tuple[str, ...], expected: str
) -> None:
    quick = home / "run-3" / "evals" / "fid.json"
    record = json.loads(quick.read_text())
    record["metrics"][2]["value"] = 0.9
    quick.write_text(json.dumps(record))
    ended = runs(home, "ls", *order)
    assert ended.returncode == 0, ended.stderr
    assert [line.split("\t")[0] for line in ended.stdout.splitlines()[1:]] == [
        f"run-{number}" for number in expected.split()
    ]


def test_sorting_looks_at_all_runs_and_shows_the_number(home: Path) -> None:
    ended = runs(home, "ls", "--sort", "fid", "-n", "2")
    assert column(ended.stdout, "fid") == [("run-2", "3"), ("run-1", "4")]
    assert "3 more runs are not shown" in ended.stderr
    by_size = runs(home, "ls", "--sort", "size", "-n", "1")
    assert by_size.stdout.splitlines()[1].split("\t")[0] == "run-2"
    assert re.fullmatch(r"[\d.]+ kB", column(by_size.stdout, "size")[0][1])


def test_json_has_each_number_with_its_provenance(home: Path) -> None:
    listing = json.loads(runs(home, "ls", "--json", "--metric", "fid", "--sort", "is").stdout)
    assert (listing["schema"], listing["total_runs"], listing["sorted_by"]) == (1, 5, "is")
    assert [found["name"] for found in listing["columns"]] == ["fid", "is"]
    metrics = {run["id"]: run["metrics"] for run in listing["runs"]}
    assert metrics["run-5"] == {"fid": None, "is": None}
    quick, usual = metrics["run-3"]["fid"], metrics["run-1"]["fid"]
    assert (quick["value"], quick["mark"], quick["checkpoint"], quick["weights"]) == (
        20.0,
        "a",
        500,
        "ema-0.9999",
    )
    assert quick["differences"][0] == {"name": "samples", "here": "1000", "unmarked": "10000"}
    assert quick["comparison_key"] != usual["comparison_key"] == listing["columns"][0]["comparison_key"]
    assert usual["differences"] == []
    assert {"name": "sampler", "value": "ancestral-250", "text": "ancestral-250"} in usual["facts"]
    assert Path(usual["path"]) == home / "run-1" / "evals" / "fid.json"
    assert metrics["run-1"]["is"]["deviation"] == 0.1


def test_a_terminal_keeps_the_numbers_and_leaves_out_other_columns(home: Path) -> None:
    _, shown = on_terminal(home, "ls", "--metric", "fid", COLUMNS="120", NO_COLOR="1")
    lines = plain(shown)
    assert lines[0].startswith("id     name     preset")
    assert (lines[0][-3:], lines[3][-5:], lines[4].rstrip()[-4:]) == ("fid", " 20 a", "   3")
    # numbers end in line, with and without a mark
    assert lines[3].index("20 a") + 1 == len(lines[4].rstrip()) - 1
    _, shown = on_terminal(home, "ls", "--metric", "fid", COLUMNS="20", NO_COLOR="1")
    assert plain(shown)[:4] == ["id     fid", "run-5", "run-4    5", "run-3   20 a"]
    many = ("--metric", "fid", "--metric", "recall", "--metric", "bpd")
    _, shown = on_terminal(home, "ls", *many, COLUMNS="24", NO_COLOR="1")
    assert plain(shown)[0] == "id     fid    recall"
    assert "no room for bits/dim" in shown
    _, shown = on_terminal(home, "ls", *many, "--sort", "bpd", COLUMNS="24", NO_COLOR="1")
    assert plain(shown)[0] == "id     fid    bits/dim"
    assert "no room for recall" in shown


def plain(shown: str) -> list[str]:
    """The lines without what styles them, and without the spaces at their ends."""
    return [line.rstrip() for line in re.sub(r"\033\[[\d;]*m", "", shown).splitlines()]


def test_a_broken_record_hides_no_other_and_is_told(home: Path) -> None:
    (home / "run-1" / "evals" / "broken.json").write_text('{"schema": 1,')
    (home / "run-5" / "evals").write_text("no directory")
    ended = runs(home, "ls", "--metric", "fid")
    assert ("run-1", "4") in column(ended.stdout, "fid")
    assert re.search(r"run-1: an evaluation cannot be read: .*broken\.json is not JSON", ended.stderr)
    assert re.search(r"run-5: an evaluation cannot be read: cannot read .*evals", ended.stderr)
    listing = json.loads(runs(home, "ls", "--metric", "fid", "--json").stdout)
    assert [found["run"] for found in listing["unreadable_evaluations"]] == ["run-5", "run-1"]


REFUSALS = [
    (("--metric", "fdi"), "no run in", "did you mean fid?\n  there are bits/dim, fid, is, recall"),
    (("--metric", "kid"), "named 'kid'", "there are bits/dim, fid, is, recall"),
    (("--sort", "lss"), "named 'lss'", "did you mean loss?"),
    (("--reverse",), "--reverse is of an order", "--sort"),
]


@pytest.mark.parametrize(("line", "what", "advice"), REFUSALS)
def test_what_cannot_be_meant_is_refused(home: Path, line: tuple[str, ...], what: str, advice: str) -> None:
    ended = runs(home, "ls", *line)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert what in ended.stderr
    assert advice in ended.stderr


def test_a_metric_that_only_older_runs_have_is_known(home: Path, tmp_path: Path) -> None:
    ended = runs(home, "ls", "-n", "1", "--metric", "bpd")
    assert (ended.returncode, column(ended.stdout, "bits/dim")) == (0, [("run-5", "")])
    assert runs(tmp_path / "nothing", "ls", "--metric", "fid").returncode == 0
    new_run(tmp_path / "bare")
    assert "nothing is evaluated yet" in runs(tmp_path / "bare", "ls", "--metric", "fid").stderr


def test_show_prints_each_evaluation_with_its_provenance(home: Path) -> None:
    sweep = home / "run-2" / "evals" / "sweep.json"
    sweep.write_text(json.dumps({"schema": 1, "kind": "sweep"}))
    (home / "run-2" / "evals" / "torn.json").write_text("{")
    ended = runs(home, "show", "run-2")
    assert ended.returncode == 0
    known = {
        (part, name): value for part, name, value in (row.split("\t") for row in ended.stdout.splitlines())
    }
    assert known["evals", "fid"] == str(home / "run-2" / "evals" / "fid.json")
    assert known["eval fid", "fid"] == "3, of 10000 samples, 50000 of the reference"
    assert known["eval fid", "is"] == "9.5 +- 0.1 over 2 parts, of 10000 samples"
    assert known["eval fid", "model"] == "run-1 at step 500, weights ema-0.9999"
    assert known["eval fid", "sampling"].startswith("ancestral in 250 steps, 250 calls of the network")
    assert known["eval fid", "reference"].startswith(
        "data/cifar10/train: 50000 of 50000 images, 32x32x3 (dddd"
    )
    assert known["eval fid", "extractor"].startswith("inception, 2048 dimensions (eeee")
    assert known["eval fid", "warning"] == "the last part is short"
    assert known["eval fid", "when"].startswith("2026-1")
    assert known["eval nll", "bits/dim"] == "3.7712 +- 0.0100"
    assert known["eval nll", "images"] == "10000, cifar10 test (cccccccccccc)"
    assert known["eval nll", "timesteps"] == "4000"
    assert known["eval sweep", "kind"] == "sweep"
    assert "torn.json is not JSON" in known["eval torn", "problem"]
    assert "an evaluation cannot be read" in ended.stderr
    _, shown = on_terminal(home, "show", "run-2", COLUMNS="100", NO_COLOR="1")
    lines = plain(shown)
    assert "eval fid" in lines
    assert re.fullmatch(
        r"  is +9\.5 \+- 0\.1 over 2 parts, of 10000 samples", lines[lines.index("eval fid") + 2]
    )


def test_show_as_json_has_the_whole_records(home: Path) -> None:
    told = json.loads(runs(home, "show", "run-2", "--json").stdout)["evaluations"]
    for found in told:
        record = json.loads(Path(found["path"]).read_text())
        del record["schema"]
        assert found["evaluation"] == record
        assert (found["kind"], found["problem"]) == (record["kind"], None)
    assert [found["name"] for found in told] == ["fid", "nll"]


def test_numbers_are_listed_without_torch(home: Path) -> None:
    ending = "print(sorted({'torch', 'numpy', 'rich', 'accelerate'} & set(sys.modules)), file=sys.stderr)"
    ended = runs(home, "ls", "--metric", "fid", "--sort", "recall", ending=ending)
    assert ended.stderr.splitlines()[-1] == "[]"


def test_a_plain_list_reads_no_evaluation(home: Path) -> None:
    ending = "print('diffcli.registry.evaluation_records' in sys.modules, file=sys.stderr)"
    (home / "run-5" / "evals").write_text("no directory")
    assert runs(home, "ls", ending=ending).stderr == "False\n"
