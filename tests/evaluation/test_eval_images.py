"""`diffcli eval` of images beside a reference, in real processes: numbers, sides, refusals, ranks, kills."""

from __future__ import annotations

import json
from pathlib import Path
from signal import SIGKILL, SIGTERM

import numpy as np
import pytest
from PIL import Image

from latent_runs import drawing, read_archive
from runs_in_processes import Bench, fork, fork_ranks, make_bench, wait_until
from runs_on_disk import run_of_a_network

MACHINE = ("--device", "cpu", "--threads", "1")
PIXELS = ("--features", "pixels", "--feature-batch", "7")
DRAWN = ("--num", "40", "--ddim", "4", "--batch-size", "16")
RUN = ("eval", "run-1", *PIXELS, *DRAWN, *MACHINE)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Bench:
    """Digits, and a run of a network that was not trained, whose samples were evaluated."""
    made = make_bench(tmp_path_factory.mktemp("eval-images"))
    run_of_a_network(made.runs, drawing(8, classes=0), "plain")
    return made


@pytest.fixture(scope="module")
def result(evaluated):
    """The JSON result of the evaluation."""
    return json_of(evaluated, *RUN)


def json_of(bench, *arguments, **settings):
    return json.loads(fork(bench, *arguments, "--json", **settings).succeeds().output)


def values(result):
    return {metric["name"]: metric["value"] for metric in result["metrics"]}


def archive_of(result) -> Path:
    return Path(result["samples"]["location"])


def pixel_features(images):
    return (images.astype(np.float64) / 127.5 - 1).reshape(len(images), -1)


def test_numbers_of_pixels_are_those_of_their_formulas(evaluated, result):
    samples = pixel_features(read_archive(archive_of(result).parent).images)
    training = pixel_features(np.load(evaluated.directory / "data/digits/train/images.npy"))
    assert set(values(result)) == {"fd_pixels", "kd_pixels", "precision_pixels", "recall_pixels"}
    product = np.cov(samples, rowvar=False) @ np.cov(training, rowvar=False)
    # of its square root the trace is the sum of the roots of its eigenvalues
    roots = np.sqrt(np.linalg.eigvals(product).real.clip(min=0))
    frechet = (
        np.square(samples.mean(0) - training.mean(0)).sum()
        + np.trace(np.cov(samples, rowvar=False))
        + np.trace(np.cov(training, rowvar=False))
        - 2 * roots.sum()
    )
    assert values(result)["fd_pixels"] == pytest.approx(frechet, rel=1e-3)
    between = np.square(samples[:, None] - training[None]).sum(-1)
    radii = np.sort(np.square(training[:, None] - training[None]).sum(-1), axis=1)[:, 3]
    assert values(result)["precision_pixels"] == pytest.approx((between <= radii).any(1).mean())
    own = np.sort(np.square(samples[:, None] - samples[None]).sum(-1), axis=1)[:, 3]
    assert values(result)["recall_pixels"] == pytest.approx((between <= own[:, None]).any(0).mean())


def test_the_record_says_what_was_compared_and_how(evaluated, result):
    record = json.loads((evaluated.directory / result["path"]).read_text())
    assert record["metrics"] == result["metrics"]
    assert (record["model"]["run"], record["model"]["checkpoint"]) == ("run-1", 1)
    assert record["sampling"]["solver"] == "ddim"
    assert (record["sampling"]["steps"], record["sampling"]["model_calls"]) == (4, 4)
    assert (record["samples"]["count"], record["samples"]["total"]) == (40, 40)
    assert record["reference"]["split"] == "train"
    training = json.loads((evaluated.directory / "data/digits/train/dataset.json").read_text())
    assert record["reference"]["content_hash"] == training["content_hash"]
    assert record["extractor"]["name"] == "pixels"
    assert record["extractor"]["dimensions"] == 64
    assert "do not determine a covariance" in record["warnings"][0]


def test_the_list_of_runs_shows_the_number(evaluated, result):
    shown = fork(evaluated, "runs", "ls", "--metric", "fd_pixels", "--sort", "recall_pixels").succeeds()
    header, row = (line.split("\t") for line in shown.output.splitlines())
    assert (header[-2:], row[0]) == (["fd_pixels", "recall_pixels"], "run-1")
    assert float(row[-2]) == pytest.approx(values(result)["fd_pixels"], rel=1e-3)
    details = fork(evaluated, "runs", "show", "run-1").succeeds()
    assert f"eval {result['name']}\tfd_pixels\t{row[-2]}, of 40 samples" in details.output


def test_the_same_again_is_told_and_not_computed(evaluated, result):
    written = (evaluated.directory / result["path"]).stat().st_mtime_ns
    again = json_of(evaluated, *RUN)
    assert again["already_there"]
    assert again["metrics"] == result["metrics"]
    assert (evaluated.directory / result["path"]).stat().st_mtime_ns == written
    assert not list((evaluated.run() / "evals").glob(".*"))


def test_archive_directory_folder_and_dataset_are_the_same_images(evaluated, result, tmp_path):
    archive = archive_of(result)
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, image in enumerate(read_archive(archive.parent).images):
        Image.fromarray(image[..., 0]).save(folder / f"{number:05d}.png")
    compressed = tmp_path / "compressed.npz"
    np.savez_compressed(compressed, arr_0=read_archive(archive.parent).images)
    fork(evaluated, "prepare", "folder", "--source", str(folder), "--size", "8", "--channels", "1").succeeds()
    reference = ("--reference", "digits/train")
    for target in (archive, archive.parent, folder, compressed, "data/folder_8/train"):
        told = json_of(evaluated, "eval", str(target), *PIXELS, *reference, *MACHINE)
        assert values(told) == values(result), target
        assert (told["model"] is None) == (target not in (archive, archive.parent))


def test_a_record_of_images_that_are_no_runs_goes_where_it_is_sent(evaluated, result, tmp_path):
    copy = tmp_path / "copy.npz"
    copy.write_bytes(archive_of(result).read_bytes())
    line = ("eval", str(copy), *PIXELS, "--reference", "digits/test", *MACHINE)
    assert json_of(evaluated, *line)["path"] is None
    told = json_of(evaluated, *line, "--out", str(tmp_path / "kept.json"))
    assert json.loads((tmp_path / "kept.json").read_text())["metrics"] == told["metrics"]


def test_what_cannot_be_computed_is_named_with_the_reason(evaluated, result, tmp_path):
    told = json_of(
        evaluated,
        "eval",
        str(archive_of(result)),
        *PIXELS,
        *MACHINE,
        "--metrics",
        "fid,is,sfd,fd_infinity,fd",
    )
    reasons = {skipped["name"]: skipped["reason"] for skipped in told["skipped"]}
    assert list(values(told)) == ["fd_pixels"]
    assert "it is fd_pixels" in reasons["fid"]
    assert reasons["is"] == "pixels knows no classes"
    assert reasons["sfd"] == "pixels has no spatial features"
    assert "needs 314 images" in reasons["fd_infinity"]
    statistics = tmp_path / "statistics.npz"
    np.savez(statistics, mu=np.zeros(64), sigma=np.eye(64))
    line = ("eval", str(archive_of(result)), *PIXELS, *MACHINE, "--reference", str(statistics))
    process = fork(evaluated, *line)
    assert process.exit_code() == 2
    for name in ("fd", "kd", "precision", "recall"):
        assert f"{name}: the reference holds statistics" in process.errors


def test_copies_of_training_images_are_found(evaluated, tmp_path):
    training = np.load(evaluated.directory / "data/digits/train/images.npy")
    chosen = np.array([3, 500, 1499])
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", arr_0=np.concatenate([noise, training[chosen]]))
    np.savez(tmp_path / "twice.npz", arr_0=np.concatenate([training, training]))
    told = json_of(
        evaluated,
        *("eval", str(tmp_path / "some.npz"), *PIXELS, "--reference", "digits/train", *MACHINE),
        *("--metrics", "nearest", "--out", str(tmp_path / "near.json")),
    )
    assert values(told)["memorized_pixels"] == pytest.approx(3 / 8)
    closest = [(pair["sample"], pair["training"], pair["distance"]) for pair in told["nearest"][:3]]
    assert closest == [(5, 3, 0.0), (6, 500, 0.0), (7, 1499, 0.0)]
    twice = json_of(
        evaluated,
        *("eval", str(tmp_path / "some.npz"), *PIXELS, "--reference", str(tmp_path / "twice.npz"), *MACHINE),
        *("--metrics", "nearest"),
    )
    assert values(twice) == values(told)
    with Image.open(tmp_path / "near.png") as picture:
        assert picture.width > 8 * 64


def test_statistics_of_a_dataset_are_worked_out_once(evaluated, result):
    kept = sorted((evaluated.directory / "data/digits/.statistics").iterdir())
    assert kept
    before = [path.stat().st_mtime_ns for path in kept]
    assert values(json_of(evaluated, *RUN, "--seed", "1")) != values(result)
    assert [path.stat().st_mtime_ns for path in kept] == before
    # a file that is damaged is worked out anew
    kept[0].write_bytes(b"no tensors")
    again = json_of(evaluated, *RUN, "--force")
    assert values(again) == values(result)


def test_two_ranks_give_the_same_numbers(evaluated, result):
    both = fork_ranks(evaluated, 2, *RUN, "--json", "--name", "by-two")
    for process in both:
        process.succeeds()
    (told,) = [json.loads(process.output) for process in both if process.output]
    assert told["conditions"]["world_size"] == 2
    assert told["metrics"] == result["metrics"]
    assert told["fingerprint"] == result["fingerprint"]


@pytest.mark.parametrize("number", [SIGKILL, SIGTERM])
def test_a_stop_costs_no_bit(evaluated, result, number):
    name = f"stopped-{number.name.lower()}"
    line = (*RUN, "--name", name, "--feature-batch", "1", "--force")
    whole = json_of(evaluated, *line, "--name", f"{name}-whole")
    process = fork(evaluated, *line, "--json")
    parts = evaluated.run() / "evals" / f".{name}.parts" / "samples"
    wait_until(lambda: len(list(parts.glob("batch-*"))) > 3, process)
    process.send(number)
    assert process.exit_code() in (-9, 137, 143)
    assert not (evaluated.run() / "evals" / f"{name}.json").exists()
    assert json_of(evaluated, *line)["metrics"] == whole["metrics"]
    assert not list((evaluated.run() / "evals").glob(".*"))


REFUSALS = [
    (("eval", "nowhere.npz"), 3, "there is no nowhere.npz", "a run, an archive"),
    (("eval", "run-9"), 3, "run-9", ""),
    (("eval", "run-1", "--metrics", "fdi"), 2, "there is no metric 'fdi'", "fid"),
    (("eval", "run-1", "--reference", "digit"), 3, "there is no reference 'digit'", "digits"),
    (("eval", "run-1", "--reference", "data/digits"), 2, "holds the splits test, train", "data/digits/test"),
    (("eval", "run-1", "--features", "run-1"), 2, "run-1 is no classifier", "pixels"),
    (("eval", "run-1", "--features", "run-7"), 3, "run-7", "--features is inception, pixels, or a run"),
    (("eval", "run-1", "--split", "test"), 2, "--split is for --nll", "--nll"),
    (("eval", "run-1", "--nll", "--metrics", "fid"), 2, "--nll and --metrics exclude", "--metrics"),
    (("eval", "run-1", "--name", "a/b"), 2, "cannot name an evaluation", "--name"),
    (("eval", "tiny.toml"), 2, "neither an archive nor a directory", ".npz"),
    (("eval", "data", "--reference", "digits/test"), 3, "image", ""),
]


@pytest.mark.parametrize(("line", "code", "what", "advice"), REFUSALS)
def test_what_cannot_be_meant_is_refused(evaluated, line, code, what, advice):
    features = () if "--nll" in line or "--features" in line else ("--features", "pixels")
    before = list((evaluated.run() / "samples").glob("*"))
    process = fork(evaluated, *line, *features, "--device", "cpu")
    assert process.exit_code(timeout=60) == code, process.errors
    assert list((evaluated.run() / "samples").glob("*")) == before, "it was told after hours of sampling"
    assert what in process.errors
    assert advice in process.errors
    assert "Traceback" not in process.errors


def test_images_without_a_run_need_a_reference(evaluated, tmp_path):
    np.savez(tmp_path / "some.npz", arr_0=np.zeros((4, 8, 8, 1), np.uint8))
    process = fork(evaluated, "eval", str(tmp_path / "some.npz"), *PIXELS)
    assert process.exit_code() == 2
    assert "--reference" in process.errors
    larger = tmp_path / "larger.npz"
    np.savez(larger, arr_0=np.zeros((4, 16, 16, 1), np.uint8))
    process = fork(evaluated, "eval", str(larger), *PIXELS, "--reference", "digits/test")
    assert process.exit_code() == 2
    assert "the samples are 16x16x1, the reference 8x8x1" in process.errors


HOSTILE = {
    "no images": {"arr_0": np.zeros((4, 8, 8, 1), np.float32)},
    "another shape": {"arr_0": np.zeros((4, 8, 8, 5), np.uint8)},
    "objects": {"arr_0": np.array([{}], dtype=object)},
    "no covariance": {"mu": np.zeros(4), "sigma": np.zeros((3, 3))},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_files_that_hold_something_else_are_damaged(evaluated, kind, tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, **HOSTILE[kind])
    process = fork(evaluated, "eval", "run-1", *PIXELS, *DRAWN, "--reference", str(path))
    assert process.exit_code() == 5, process.errors
    assert "file.npz" in process.errors
