"""`diffcli eval` by Inception: whole passes on weights made by formula, and every kind of reference."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from diffcli.evaluation.frechet import frechet_distance
from diffcli.evaluation.inception import InceptionFeatures
from diffcli.evaluation.inception_weights import inception_state
from diffcli.evaluation.moments import moments_of
from inception_formula import formula_images, formula_weights
from runs_in_processes import Bench, fork

COUNT = 5
LINE = ("--device", "cpu", "--threads", "1", "--feature-batch", "3", "--json")


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    """An archive, a reference of images, and weights."""
    directory = tmp_path_factory.mktemp("eval-inception")
    for name, salt in (("samples", 31), ("reference", 41)):
        np.savez(directory / f"{name}.npz", arr_0=formula_images(COUNT, 32, 32, salt=salt).numpy())
    torch.save(formula_weights(trained_gamma=True), directory / "weights.pth")
    return Bench(directory=directory)


@pytest.fixture(scope="module")
def features():
    """What the network makes of both, called by hand."""
    weights = formula_weights(trained_gamma=True)
    plain = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    network = InceptionFeatures(inception_state(plain, source="formula").tensors, torch.device("cpu"))
    samples, reference = (network(formula_images(COUNT, 32, 32, salt=salt)) for salt in (31, 41))
    return samples, reference


def evaluated(bench, *arguments, **environment):
    line = ("eval", "samples.npz", *arguments, *LINE)
    return json.loads(fork(bench, *line, environment=environment).succeeds().output)


def values(result):
    return {metric["name"]: metric["value"] for metric in result["metrics"]}


def test_numbers_are_those_of_the_network_and_have_their_own_names(bench, features):
    told = evaluated(bench, "--reference", "reference.npz", "--weights", "weights.pth")
    assert set(values(told)) == {"fid", "sfid", "is", "precision", "recall", "kid"}
    samples, reference = features
    fid = frechet_distance(moments_of(samples.pooled), moments_of(reference.pooled))
    sfid = frechet_distance(moments_of(samples.spatial), moments_of(reference.spatial))
    assert values(told)["fid"] == pytest.approx(fid, rel=1e-4)
    assert values(told)["sfid"] == pytest.approx(sfid, rel=1e-4)
    warnings = " ".join(told["warnings"])
    assert "only if it holds the same weights, as OpenAI's should" in warnings
    assert f"{COUNT} samples do not determine a covariance of 2048" in warnings
    assert (told["extractor"]["published"], len(told["extractor"]["sha256"])) == (False, 64)


def test_published_statistics_stand_for_images(bench, features):
    _, reference = features
    pooled, spatial = moments_of(reference.pooled), moments_of(reference.spatial)
    whole = {
        "mu": pooled.mean.numpy(),
        "sigma": pooled.covariance.numpy(),
        "mu_s": spatial.mean.numpy(),
        "sigma_s": spatial.covariance.numpy(),
    }
    np.savez(bench.directory / "edm.npz", mu=whole["mu"], sigma=whole["sigma"])
    with np.load(bench.directory / "reference.npz") as archive:
        np.savez(bench.directory / "VIRTUAL_things.npz", arr_0=archive["arr_0"], **whole)
    images = evaluated(bench, "--reference", "reference.npz", "--weights", "weights.pth")
    virtual = evaluated(bench, "--reference", "VIRTUAL_things.npz", "--weights", "weights.pth")
    for name, value in values(images).items():
        assert values(virtual)[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert virtual["reference"]["kind"] == "statistics"
    asked = ("--metrics", "fid,sfid,precision,kid")
    edm = evaluated(bench, "--reference", "edm.npz", "--weights", "weights.pth", *asked)
    assert values(edm)["fid"] == pytest.approx(values(images)["fid"], rel=1e-4)
    reasons = {skipped["name"]: skipped["reason"] for skipped in edm["skipped"]}
    assert set(reasons) == {"sfid", "precision", "kid"}
    assert reasons["precision"] == "the reference holds statistics, and no images"


def test_statistics_may_stand_on_either_side(bench, features):
    samples, reference = features
    first, second = moments_of(samples.pooled), moments_of(reference.pooled)
    for name, moments in (("mine", first), ("other", second)):
        np.savez(bench.directory / f"{name}.npz", mu=moments.mean.numpy(), sigma=moments.covariance.numpy())
    line = ("eval", "mine.npz", "--reference", "other.npz", "--weights", "weights.pth", *LINE)
    told = json.loads(fork(bench, *line).succeeds().output)
    assert values(told) == {"fid": pytest.approx(frechet_distance(first, second), rel=1e-6)}
    assert (told["samples"]["kind"], told["metrics"][0]["samples"]) == ("statistics", None)
    assert "do not determine" not in " ".join(told["warnings"])
    reasons = {skipped["name"]: skipped["reason"] for skipped in told["skipped"]}
    assert set(reasons) == {"sfid", "is", "precision", "recall", "kid"}
    assert reasons["is"] == "the samples are statistics, and no images"
    nearest = json.loads(fork(bench, *line, "--metrics", "nearest,fid").succeeds().output)
    assert nearest["skipped"][0]["reason"] == "the samples are statistics, and no images"
    refused = fork(bench, *line, "--num", "3")
    assert refused.exit_code() == 2
    assert "--num is 3, and there are 0 images" in refused.errors
    pixels = fork(bench, "eval", "mine.npz", "--reference", "other.npz", "--features", "pixels", *LINE)
    assert pixels.exit_code() == 2
    assert "statistics without images are of Inception's features" in pixels.errors


def test_published_moments_of_samples_are_of_all_of_them(bench, features):
    samples, _ = features
    moments = moments_of(samples.pooled)
    with np.load(bench.directory / "samples.npz") as archive:
        shifted = moments.mean.numpy() + 1.0
        np.savez(
            bench.directory / "virtual.npz",
            arr_0=archive["arr_0"],
            mu=shifted,
            sigma=moments.covariance.numpy(),
        )
    line = (
        "eval",
        "virtual.npz",
        "--reference",
        "samples.npz",
        "--weights",
        "weights.pth",
        "--metrics",
        "fid",
    )
    whole = json.loads(fork(bench, *line, *LINE).succeeds().output)
    assert values(whole)["fid"] == pytest.approx(2048.0, rel=1e-3)
    assert (whole["metrics"][0]["samples"], whole["metrics"][0]["references"]) == (None, COUNT)
    some = json.loads(fork(bench, *line, *LINE, "--num", str(COUNT - 1)).succeeds().output)
    assert values(some)["fid"] < 100


def test_the_score_alone_needs_no_reference(bench):
    weights = str(bench.directory / "weights.pth")
    told = evaluated(bench, "--metrics", "is", DIFFCLI_INCEPTION=weights)
    assert list(values(told)) == ["is"]
    assert told["reference"] is None


def test_without_weights_and_network_it_says_where_to_put_them(bench, tmp_path):
    offline = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    line = ("eval", "samples.npz", "--reference", "reference.npz", *LINE)
    process = fork(bench, *line, environment={"DIFFCLI_CACHE": str(tmp_path), **offline})
    assert process.exit_code() == 3, process.errors
    assert "https://github.com/mseitzer/pytorch-fid/releases" in process.errors
    assert "--features pixels" in process.errors
    assert str(tmp_path) in process.errors


def test_names_of_published_references_say_where_they_are_kept(bench, tmp_path):
    line, cache = ("eval", "samples.npz", "--weights", "weights.pth", *LINE), {"DIFFCLI_CACHE": str(tmp_path)}
    process = fork(bench, *line, "--reference", "VIRTUAL_imagenet64_labeled", environment=cache)
    assert process.exit_code() == 3
    assert "imagenet/64/VIRTUAL_imagenet64_labeled.npz" in process.errors
    (tmp_path / "references").mkdir()
    placed = tmp_path / "references" / "VIRTUAL_imagenet64_labeled.npz"
    placed.write_bytes((bench.directory / "reference.npz").read_bytes())
    told = fork(bench, *line, "--reference", placed.stem, environment=cache).succeeds().output
    by_file = evaluated(bench, "--reference", "reference.npz", "--weights", "weights.pth")
    assert json.loads(told)["metrics"] == by_file["metrics"]
