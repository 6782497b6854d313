"""What `diffcli eval` refuses or says of images and a reference, before any sample is drawn where it can."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from latent_runs import drawing
from runs_in_processes import Bench, fork, make_bench
from runs_on_disk import run_of_a_network

MACHINE = ("--device", "cpu", "--threads", "1")
PIXELS = ("--features", "pixels", *MACHINE)
RUN = ("eval", "run-1", *PIXELS, "--num", "40", "--ddim", "2")


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    """Digits, and a run of a network that was not trained."""
    made = make_bench(tmp_path_factory.mktemp("eval-checks"))
    run_of_a_network(made.runs, drawing(8, classes=0), "plain")
    return made


@pytest.fixture(scope="module")
def images(bench) -> Path:
    """Archives of images that are no run's: many, and a single one."""
    rng = np.random.default_rng(0)
    for name, count in (("many", 30), ("three", 3), ("one", 1)):
        pixels = rng.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
        np.savez(bench.directory / f"{name}.npz", arr_0=pixels)
    np.savez(bench.directory / "statistics.npz", mu=np.zeros(64), sigma=np.eye(64))
    return bench.directory


def json_of(bench, *arguments):
    return json.loads(fork(bench, *arguments, "--json").succeeds().output)


def names(found):
    return [each["name"] for each in found]


def archives(bench):
    return sorted((bench.run() / "samples").glob("*"))


def refused(bench, *line):
    """What is said of a line that must not draw or write anything."""
    before = archives(bench), sorted((bench.run() / "evals").glob("*"))
    process = fork(bench, *line)
    assert process.exit_code() == 2, process.errors
    assert (archives(bench), sorted((bench.run() / "evals").glob("*"))) == before
    return process.errors


IMPOSSIBLE = [
    (("--metrics", "is"), "is: pixels knows no classes"),
    (("--metrics", "fid,sfd"), "sfd: pixels has no spatial features"),
    (("--metrics", "precision", "--num", "3"), "precision: it needs 4 images or more, there are 3 samples"),
    (("--metrics", "fd_infinity"), "fd_infinity: it needs 314 images or more, there are 40 samples"),
    (("--reference", "statistics.npz"), "kd: the reference holds statistics, and no images"),
    (
        ("--metrics", "coverage", "--reference", "three.npz"),
        "6 images or more, there are 3 images of the ref",
    ),
]


@pytest.mark.parametrize(("options", "reason"), IMPOSSIBLE)
def test_what_cannot_be_computed_draws_nothing(bench, images, options, reason):
    assert reason in refused(bench, *RUN, *options)


def test_what_cannot_be_computed_is_said_before_the_rest_is_drawn(bench):
    process = fork(bench, *RUN, "--metrics", "is,fd", "--json")
    told = json.loads(process.succeeds().output)
    assert (names(told["skipped"]), names(told["metrics"])) == (["is"], ["fd_pixels"])
    assert process.errors.count("will not be computed: is: pixels knows no classes") == 1


def test_a_single_image_has_the_metrics_that_need_no_covariance(bench, images):
    """On either side, where a covariance, neighbourhoods and a next image need more of them."""
    line = ("eval", "one.npz", *PIXELS, "--metrics", "fd,nearest,density,kd,precision", "--reference")
    told = json_of(bench, *line, "many.npz")
    measured = ["nearest_pixels", "memorized_pixels", "density_pixels"]
    assert names(told["metrics"]) == measured
    reasons = {skipped["name"]: skipped["reason"] for skipped in told["skipped"]}
    assert set(reasons) == {"fd", "kd", "precision"}
    assert reasons["fd"] == "a covariance needs 2 images or more, there are 1 samples"
    errors = refused(bench, "eval", "many.npz", *PIXELS, "--reference", "one.npz", "--metrics", "fd,nearest")
    assert "nearest: it needs 2 images or more, there are 1 images of the reference" in errors


def test_a_single_image_of_a_run_leaves_no_parts(bench):
    told = json_of(bench, *RUN, "--num", "1", "--metrics", "nearest,fd", "--seed", "9")
    assert (names(told["skipped"]), len(told["metrics"])) == (["fd"], 2)
    assert not list((bench.run() / "evals").glob(".*"))


WITHOUT_EFFECT = [
    *[("--steps", "2"), ("--ddim", "10"), ("--eta", "0.5"), ("--set", "sampling.clip=false")],
    *[("--ema", "none"), ("--ema-std", "0.1"), ("--checkpoint", "99999"), ("--class", "cat")],
    *[("--classifier", "run-1"), ("--guidance", "2"), ("--cfg", "3"), ("--low-res", "many.npz")],
    *[("--batch-size", "4"), ("--precision", "bf16"), ("--name", "mine")],
]


@pytest.mark.parametrize("option", WITHOUT_EFFECT, ids=[option for option, _ in WITHOUT_EFFECT])
def test_options_that_images_cannot_heed_are_refused(bench, images, option):
    errors = refused(bench, "eval", "many.npz", *PIXELS, "--reference", "digits/test", *option)
    assert f"{option[0]} " in errors
    assert "many.npz" in errors


def test_a_run_s_archive_takes_a_name_and_no_sampling_options(bench):
    drawn = json_of(bench, *RUN, "--seed", "2", "--metrics", "fd")
    line = ("eval", drawn["samples"]["location"], *PIXELS, "--metrics", "fd")
    assert "--ddim says how samples are drawn" in refused(bench, *line, "--ddim", "2")
    assert json_of(bench, *line, "--name", "mine")["name"] == "mine"


def test_a_directory_is_no_place_for_a_record(bench, images):
    line = ("eval", "many.npz", *PIXELS, "--reference", "digits/test", "--out", "data")
    for force in ((), ("--force",)):
        errors = refused(bench, *line, *force)
        assert "data is a directory" in errors
        assert "data/evaluation.json" in errors


def test_a_name_that_is_taken_is_told_before_anything_is_drawn(bench):
    line = (*RUN, "--metrics", "fd", "--name", "taken")
    json_of(bench, *line)
    for changed in (
        *[("--num", "41"), ("--ddim", "3"), ("--seed", "77"), ("--ema", "none", "--ddim", "4")],
        *[
            ("--steps", "3"),
            ("--half-distances", "--num", "42"),
            ("--reference", "digits/test", "--num", "43"),
        ],
    ):
        with_steps = (part for part in line if "--steps" not in changed or part not in ("--ddim", "2"))
        assert "is another evaluation" in refused(bench, *with_steps, *changed)
    assert json_of(bench, *line)["already_there"]


def test_a_reference_of_few_images_is_warned_of(bench, images):
    line = ("eval", "many.npz", *PIXELS, "--metrics", "fd", "--reference", "digits/train")
    few = "do not determine a covariance of 64 features"
    (samples,) = json_of(bench, *line)["warnings"]
    assert samples.startswith(f"30 samples {few}")
    _, reference = json_of(bench, *line, "--reference-num", "64")["warnings"]
    assert reference.startswith(f"64 images of the reference {few}")


def test_the_picture_of_the_nearest_is_the_record_s_own(bench, images, tmp_path):
    record, picture = tmp_path / "near.json", tmp_path / "near.png"
    line = ("eval", "three.npz", *PIXELS, "--reference", "digits/test", "--out", str(record), "--metrics")
    picture.write_bytes(b"a picture of the user's")
    assert "near.png is there already" in refused(bench, *line, "nearest")
    assert f"record\t{record}" in fork(bench, *line, "density").succeeds().output
    assert picture.read_bytes() == b"a picture of the user's"
    told = fork(bench, *line, "nearest", "--force").succeeds().output
    assert f"nearest\t{picture}" in told
    assert picture.read_bytes().startswith(b"\x89PNG")
    # the record without pairs takes the picture of the one that it replaces with it
    assert "nearest\t" not in fork(bench, *line, "density", "--force").succeeds().output
    assert not picture.exists()
