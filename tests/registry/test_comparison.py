"""Which numbers of evaluations are alike, and what stands for a run; the records as `eval` writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffcli.records.run_details import EvaluationSummary
from diffcli.records.run_metrics import MetricResult
from diffcli.records.samples import ClassifierProvenance
from diffcli.registry.comparison import differences, results_of
from diffcli.registry.create import NewRun, Run, create_run
from diffcli.registry.evaluation_records import evaluations_of
from diffcli.registry.metric_columns import Marks, shown_result
from diffcli.registry.metric_names import family_of, full_name, larger_is_better
from evaluations_on_disk import bits_per_dim, fid, keep, with_change

_CLASSIFIER = ClassifierProvenance(
    run="run-9", checkpoint=1, checkpoint_manifest_sha256="a" * 64, weights="model", scale=2.5
)
_UNLIKE_IMAGES = [
    ("samples.height", 64, "image size 64x32x3 in place of 32x32x3"),
    ("reference.content_hash", "9" * 64, "reference cifar10/train (99999999)"),
    ("reference", None, "reference none in place of cifar10/train (dddddddd)"),
    ("extractor.digest", "9" * 64, "extractor inception (99999999)"),
    ("sampling.solver", "ddim", "sampler ddim-250 in place of ancestral-250"),
    ("sampling.steps", 50, "sampler ancestral-50 in place of ancestral-250"),
    ("sampling.eta", 0.5, "eta 0.5 in place of none"),
    ("sampling.clip", False, "clipped no in place of yes"),
    ("sampling.classes", "3", "classes 3 in place of none"),
    ("sampling.cfg", 1.5, "cfg 1.5 in place of none"),
    ("sampling.classifier", _CLASSIFIER, "classifier scale 2.5 in place of none"),
    ("sampling.precision", "bf16", "sampling precision bf16 in place of fp32"),
    ("sampling.start", "encoded", "start encoded in place of none"),
    ("sampling.low_res_sha256", "9" * 64, "small images 99999999 in place of none"),
]
_LIKE_IMAGES = [
    ("sampling.seed", 7),
    ("settings.seed", 7),
    ("settings.neighbours", 5),
    ("settings.distances", "float16"),
    ("model.weights", "model"),
    ("model.checkpoint", 9),
    ("reference.location", Path("elsewhere/cifar10/train")),
    ("conditions.batch_size", 3),
    ("conditions.torch", "3.0"),
]
_UNLIKE_LIKELIHOODS = [
    ("images.content_hash", "9" * 64, "dataset cifar10 test (99999999)"),
    ("images.split", "train", "dataset cifar10 train (cccccccc)"),
    ("images.count", 100, "images 100 in place of 10000"),
    ("settings.timesteps", 1000, "chain 1000 in place of 4000"),
    ("settings.full_chain", False, "chain 4000 of 4000 in place of 4000"),
    ("settings.clip", False, "clipped no in place of yes"),
    ("settings.estimate", True, "in place of all"),
]


def result(evaluation, metric: str) -> MetricResult:
    """One number of an evaluation."""
    summary = EvaluationSummary(
        name="a", path=Path("a.json"), kind=evaluation.kind, evaluation=evaluation, problem=None
    )
    (found,) = (found for found in results_of(summary) if found.name == metric)
    return found


def told(one: MetricResult, other: MetricResult) -> str:
    """What differs, in words."""
    return "; ".join(
        f"{found.name} {found.here} in place of {found.unmarked}" for found in differences(one, other)
    )


@pytest.mark.parametrize(("path", "value", "expected"), _UNLIKE_IMAGES)
def test_what_decides_fid_besides_the_network_makes_it_unlike(
    path: str, value: object, expected: str
) -> None:
    usual, other = result(fid(3.0), "fid"), result(with_change(fid(3.0), path, value), "fid")
    assert other.comparison_key != usual.comparison_key
    assert expected in told(other, usual)
    assert told(other, usual).count("in place of") == 1


@pytest.mark.parametrize(("path", "value"), _LIKE_IMAGES)
def test_seeds_weights_and_rounding_do_not_make_fid_unlike(path: str, value: object) -> None:
    usual, other = result(fid(3.0), "fid"), result(with_change(fid(9.0), path, value), "fid")
    assert (other.comparison_key, differences(other, usual)) == (usual.comparison_key, ())


@pytest.mark.parametrize(("path", "value", "expected"), _UNLIKE_LIKELIHOODS)
def test_other_images_chain_or_estimate_make_bits_per_dim_unlike(
    path: str, value: object, expected: str
) -> None:
    usual = result(bits_per_dim(3.0), "bits/dim")
    other = result(with_change(bits_per_dim(3.0), path, value), "bits/dim")
    assert other.comparison_key != usual.comparison_key
    assert expected in told(other, usual)


def test_bits_per_dim_of_another_seed_or_number_of_drawn_timesteps_are_alike() -> None:
    estimate = with_change(bits_per_dim(3.0), "settings.estimate", True)
    some = with_change(estimate, "settings.drawn_timesteps", 25)
    more = with_change(with_change(estimate, "settings.drawn_timesteps", 100), "settings.seed", 1)
    assert result(some, "bits/dim").comparison_key == result(more, "bits/dim").comparison_key


def test_each_metric_depends_on_settings_of_its_own() -> None:
    for metric, setting, value in (
        ("recall", "neighbours", 5),
        ("recall", "distances", "float16"),
        ("is", "score_split", 1000),
    ):
        other = with_change(fid(3.0), f"settings.{setting}", value)
        assert len(differences(result(other, metric), result(fid(3.0), metric))) == 1, setting
        assert not differences(result(other, "fid"), result(fid(3.0), "fid")), setting
    # the Inception Score knows no reference
    other = with_change(fid(3.0), "reference.content_hash", "9" * 64)
    assert not differences(result(other, "is"), result(fid(3.0), "is"))


def test_the_usual_of_a_column_has_no_mark_and_of_equals_the_newest() -> None:
    results = [
        result(fid(1.0, samples=1000, minutes=9), "fid"),
        result(fid(2.0, minutes=1), "fid"),
        None,
        result(fid(3.0, minutes=2), "fid"),
        result(fid(4.0, samples=1000, steps=50), "fid"),
        result(fid(5.0, samples=1000), "fid"),
    ]
    column = Marks().column("fid", results[:5])
    assert [cell and cell.mark for cell in column.cells] == ["a", "", None, "", "b"]
    assert [cell and cell.mark for cell in Marks().column("fid", results).cells] == [
        "",
        "a",
        None,
        "a",
        "b",
        "",
    ]
    assert column.comparison_key == results[1].comparison_key
    newest = Marks().column("fid", results[:2])
    assert [cell.mark for cell in newest.cells] == ["", "a"]


def test_the_same_differences_have_the_same_mark_in_all_columns() -> None:
    marks = Marks()
    evaluations = [fid(1.0), fid(2.0), fid(3.0, samples=1000)]
    for metric in ("fid", "is", "recall"):
        column = marks.column(metric, [result(evaluation, metric) for evaluation in evaluations])
        assert [cell.mark for cell in column.cells] == ["", "", "a"]
    alphabet = Marks()
    many = [result(fid(1.0, minutes=1), "fid"), *(result(fid(1.0, samples=n), "fid") for n in range(1, 29))]
    found = [cell.mark for cell in alphabet.column("fid", many).cells]
    assert found[:2] == ["", "a"]
    assert found[26:] == ["z", "aa", "ab"]


def test_the_newest_evaluation_of_the_newest_checkpoint_stands_for_a_run() -> None:
    results = [
        result(fid(1.0, step=500, minutes=5), "fid"),
        result(fid(2.0, step=900, minutes=1), "fid"),
        result(fid(3.0, step=900, minutes=3), "fid"),
        result(bits_per_dim(4.0, step=1000), "bits/dim"),
    ]
    assert shown_result(results, "fid") is results[2]
    assert shown_result(results, "kid") is None


@pytest.mark.parametrize(
    ("name", "family", "larger"),
    [
        ("fid", "fd", False),
        ("fd_pixels", "fd", False),
        ("fd_infinity_run-3", "fd_infinity", False),
        ("kid", "kd", False),
        ("is_run-3", "is", True),
        ("precision_pixels", "precision", True),
        ("coverage", "coverage", True),
        ("isolation", "isolation", False),
        ("bits/dim", "bits/dim", False),
    ],
)
def test_a_name_tells_what_it_is_and_which_way_is_better(name: str, family: str, larger: bool) -> None:
    assert (family_of(name), larger_is_better(name)) == (family, larger)
    assert full_name("bpd") == "bits/dim"


@pytest.fixture
def run(home: Path, spec: NewRun) -> Run:
    return create_run(home, spec)


def test_one_file_that_is_broken_or_of_another_kind_hides_no_other(run: Run) -> None:
    keep(run, "a", fid(3.0))
    newer = json.loads(keep(run, "newer", fid(4.0)).read_text())
    for name, text in (
        ("b", '{"schema": 1,'),
        ("c", "{}"),
        ("d", json.dumps({"schema": 7, "kind": "sweep", "points": []})),
        ("newer", json.dumps({**newer, "schema": 99})),
        ("z", json.dumps({**newer, "metrics": [{"name": "fid"}]})),
    ):
        (run.paths.evaluations / f"{name}.json").write_text(text)
    (run.paths.evaluations / ".a.parts").mkdir()
    (run.paths.evaluations / "a.png").write_text("")
    found = {summary.name: summary for summary in evaluations_of(run.paths)}
    assert list(found) == ["a", "b", "c", "d", "newer", "z"]
    assert found["a"].evaluation == fid(3.0)
    assert (found["d"].kind, found["d"].evaluation, found["d"].problem) == ("sweep", None, None)
    for name, problem in (("b", "not JSON"), ("c", "kind"), ("newer", "schema 99"), ("z", "metrics")):
        assert found[name].evaluation is None
        assert problem in found[name].problem
        assert f"{name}.json" in found[name].problem


def test_a_likelihood_of_an_older_diffcli_is_read(run: Run) -> None:
    record = json.loads(keep(run, "nll", bits_per_dim(3.5)).read_text())
    for place, names in (
        (record, ("fingerprint",)),
        (record["model"], ("average", "checkpoint_manifest_sha256")),
        (record["images"], ("name", "variant")),
        (record["settings"], ("estimate", "drawn_timesteps")),
        (record["conditions"], ("world_size",)),
        (record["likelihood"], ("image_bits_per_dim",)),
        (record["likelihood"]["curve"], ("images",)),
    ):
        for name in names:
            del place[name]
    (run.paths.evaluations / "nll.json").write_text(json.dumps(record))
    (summary,) = evaluations_of(run.paths)
    (number,) = results_of(summary)
    assert (number.name, number.value, number.deviation) == ("bits/dim", 3.5, 0.01)


def test_what_is_no_number_is_none(run: Run) -> None:
    keep(run, "nan", with_change(bits_per_dim(3.0), "likelihood.bits_per_dim", float("nan")))
    (summary,) = evaluations_of(run.paths)
    assert (summary.problem, list(results_of(summary))) == (None, [])
