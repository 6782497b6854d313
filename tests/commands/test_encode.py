"""`sample --encode`: x_T of images, how well they are drawn again, and that `--noise` takes them back."""

from __future__ import annotations

import hashlib
import json
import time

import numpy as np
import pytest
import torch
from PIL import Image

from diffcli.commands.run_config import current_config
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.respacing import ddim_timesteps
from diffcli.images.conversion import from_uint8
from diffcli.models.build import build_model
from diffcli.models.conditioning import Conditioning
from diffcli.registry.create import open_run
from diffcli.sampling.encode import encode
from diffcli.training.checkpoints import read_tensors
from latent_runs import (
    DDIM,
    LATENT_RUNS,
    ONE_PROCESS,
    drawn,
    make_runs,
    read_archive,
    result_of,
    sampling,
)
from runs_in_processes import Bench, fork, fork_ranks, wait_until

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)
LABELS = np.arange(10)[::-1].copy()


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    made = make_runs(tmp_path_factory.mktemp("encode"), LATENT_RUNS)
    np.savez(made.directory / "images.npz", arr_0=IMAGES, arr_1=LABELS)
    np.savez(made.directory / "unlabelled.npz", arr_0=IMAGES)
    return made


@pytest.fixture(scope="module")
def encoded(bench):
    """The result of encoding all images with their classes."""
    return result_of(bench, "digits", "--encode", "images.npz", *DDIM, "--name", "encoded")


def test_a_run_that_samples_otherwise_encodes_with_as_many_timesteps(bench):
    made = result_of(bench, "digits", "--encode", "images.npz", "--num", "2")
    same = result_of(bench, "digits", "--encode", "images.npz", "--num", "2", "--ddim", "40")
    assert made["directory"] == same["directory"]
    assert read_archive(bench.directory / made["directory"]).record["steps"] == 40


def test_classes_that_come_with_the_noise_are_part_of_a_request(bench, encoded):
    told = drawn(bench, "digits", "--noise", encoded["directory"], "--num", "4", *DDIM)
    drawn_by_seed = drawn(bench, "digits", "--noise", encoded["latents"], "--num", "4", *DDIM)
    assert told.labels.tolist() == LABELS[:4].tolist() != drawn_by_seed.labels.tolist()
    assert told.record["noise_sha256"] == drawn_by_seed.record["noise_sha256"]
    assert told.record["fingerprint"] != drawn_by_seed.record["fingerprint"]


def latents_of(bench, result):
    return np.load(bench.directory / result["latents"], allow_pickle=False)


def test_x_t_is_that_of_the_encoding_chain(bench, encoded):
    run = open_run(bench.runs, "digits")
    config = current_config(run)
    network = build_model(config).eval()
    network.load_state_dict(read_tensors(run.paths.checkpoints / "step-000001", "ema-0.9"))
    diffusion = build_diffusion(config.diffusion, ddim_timesteps(40, 6))
    condition = Conditioning(y=torch.from_numpy(LABELS))
    x = from_uint8(torch.from_numpy(IMAGES).permute(0, 3, 1, 2))
    *_, last = encode(lambda x, t: network(x, t, condition), diffusion, x, clip=True)
    latents = latents_of(bench, encoded)
    assert (latents.dtype, latents.shape) == (np.float32, (10, 1, 8, 8))
    np.testing.assert_allclose(latents, last.x.numpy(), atol=1e-4)


def test_the_directory_is_an_archive_of_the_reconstructions_and_more(bench, encoded):
    directory = bench.directory / encoded["directory"]
    assert sorted(path.name for path in directory.iterdir()) == [
        "comparison.png",
        "encoding.json",
        "grid.png",
        "latents.npy",
        "sample.json",
        "samples_10x8x8x1.npz",
    ]
    archive = read_archive(directory)
    assert archive.labels.tolist() == LABELS.tolist()
    assert archive.record["start"]["kind"] == "encoded"
    with Image.open(directory / "comparison.png") as comparison:
        pixels = np.asarray(comparison)
    # an original above what was drawn again, both four times as large
    assert pixels.shape == (2 * 32 + 2, 10 * 34 - 2)
    assert np.array_equal(pixels[0:32:4, 34:66:4], IMAGES[1, :, :, 0])
    assert np.array_equal(pixels[34:66:4, 34:66:4], archive.images[1, :, :, 0])


def test_the_record_says_how_far_the_reconstructions_are(bench, encoded):
    archive = read_archive(bench.directory / encoded["directory"])
    difference = IMAGES.astype(float) - archive.images
    record = json.loads((archive.directory / "encoding.json").read_text())
    assert {"schema": record["schema"], **encoded["encoding"]} == record
    told = record["reconstruction"]
    assert told["mean_absolute"] == pytest.approx(np.abs(difference).mean())
    assert told["psnr_db"] == pytest.approx(10 * np.log10(255**2 / (difference**2).mean()))
    by_image = np.abs(difference).mean(axis=(1, 2, 3))
    assert told["worst_image"] == by_image.argmax()
    assert told["worst_mean_absolute"] == pytest.approx(by_image.max())
    latents = latents_of(bench, encoded)
    assert record["latents"]["mean"] == pytest.approx(latents.mean(), abs=1e-6)
    assert record["latents"]["standard_deviation"] == pytest.approx(latents.std(), rel=1e-6)
    file = (archive.directory / "latents.npy").read_bytes()
    assert record["latents_sha256"] == hashlib.sha256(file).hexdigest()
    assert record["timesteps"] == 6
    assert record["images"]["path"] == str(bench.directory / "images.npz")
    assert record["images_sha256"] == archive.record["start"]["images_sha256"]


def test_x_t_of_an_image_does_not_depend_on_how_many_others_there_are(bench, encoded):
    few = result_of(bench, "digits", "--encode", "images.npz", "--num", "5", *DDIM, "--name", "five")
    assert np.array_equal(latents_of(bench, few), latents_of(bench, encoded)[:5])


def test_noise_takes_them_back_with_their_classes(bench, encoded):
    archive = read_archive(bench.directory / encoded["directory"])
    again = drawn(bench, "digits", "--noise", encoded["directory"], *DDIM, "--name", "again")
    assert np.array_equal(again.images, archive.images)
    assert again.labels.tolist() == LABELS.tolist()
    # the file alone knows no classes
    listed = ",".join(str(label) for label in LABELS)
    by_file = drawn(
        bench, "digits", "--noise", encoded["latents"], "--class", listed, *DDIM, "--name", "file"
    )
    assert np.array_equal(by_file.images, archive.images)
    few = drawn(bench, "digits", "--noise", encoded["directory"], "--num", "3", *DDIM, "--name", "few")
    assert np.array_equal(few.images, archive.images[:3])


def test_the_classes_of_the_images_or_of_the_line_are_the_condition(bench, encoded):
    others = result_of(bench, "digits", "--encode", "images.npz", "--class", "3", *DDIM)
    assert read_archive(bench.directory / others["directory"]).labels.tolist() == [3] * 10
    assert not np.array_equal(latents_of(bench, others), latents_of(bench, encoded))
    # the image whose own class it is
    assert np.array_equal(latents_of(bench, others)[6], latents_of(bench, encoded)[6])
    kept = result_of(bench, "classless", "--encode", "images.npz", *DDIM)
    assert read_archive(bench.directory / kept["directory"]).labels.tolist() == LABELS.tolist()
    nothing = sampling(bench, "digits", "--encode", "unlabelled.npz", *DDIM)
    assert nothing.exit_code() == 2
    assert "nothing tells the classes" in nothing.errors
    assert "--class" in nothing.errors


def test_a_single_picture_of_another_size_is_cut_and_said(bench):
    photo = np.random.default_rng(1).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(photo).save(bench.directory / "photo.png")
    line = ("digits", "--encode", "photo.png", "--class", "digit 4", *DDIM, "--name", "photo")
    told = fork(bench, "sample", *line, *ONE_PROCESS).succeeds()
    assert "the image was larger, and brought to 8x8" in told.errors
    assert "1 image, encoded and drawn again in" in told.errors
    assert "next: diffcli sample run-1 --noise runs/run-1/samples/photo --ddim 6" in told.errors
    rows = dict(line.split("\t", 1) for line in told.output.splitlines())
    assert list(rows) == [
        *("latents", "comparison", "record", "mean error", "PSNR", "worst image", "x_T"),
    ]
    assert rows["latents"] == "runs/run-1/samples/photo/latents.npy"


def test_a_network_that_enlarges_encodes_given_the_small_versions(bench):
    result = result_of(bench, "enlarge", "--encode", "images.npz", "--name", "own")
    archive = read_archive(bench.directory / result["directory"])
    assert archive.record["steps"] == 4
    again = drawn(
        bench, "enlarge", "--noise", result["directory"], "--low-res", "images.npz", "--name", "again"
    )
    assert np.array_equal(again.images, archive.images)
    np.savez(bench.directory / "black.npz", arr_0=np.zeros((10, 4, 4, 1), dtype=np.uint8))
    black = result_of(bench, "enlarge", "--encode", "images.npz", "--low-res", "black.npz", "--name", "black")
    assert not np.array_equal(latents_of(bench, black), latents_of(bench, result))


def test_ranks_and_interruptions_change_no_bit(bench, encoded):
    line = ("digits", "--encode", "images.npz", "--ddim", "6", "--batch-size", "4")
    ranks = fork_ranks(bench, 2, "sample", *line, *ONE_PROCESS, "--name", "ranks", "--json")
    for rank in ranks:
        rank.succeeds()
    assert np.array_equal(latents_of(bench, json.loads(ranks[0].output)), latents_of(bench, encoded))

    long = ("digits", "--encode", "images.npz", "--ddim", "40", "--batch-size", "1")
    whole = result_of(bench, *long, "--name", "whole")
    parts = bench.run() / "samples" / ".stopped.parts"
    for place in (parts / "start", parts):
        stopped = sampling(bench, *long, "--name", "stopped")
        already = len(list(place.glob("*.bin")))
        wait_until(lambda place=place, already=already: len(list(place.glob("*.bin"))) > already, stopped)
        stopped.send(15)
        assert stopped.exit_code() == 143, stopped.errors
        assert "same command goes on" in stopped.errors
        assert 0 < len(list(place.glob("*.bin"))) < 10
    before = {path: path.stat().st_mtime_ns for path in parts.rglob("*.bin")}
    time.sleep(0.01)
    assert len(before) > 10
    gone_on = result_of(bench, *long, "--name", "stopped")
    assert np.array_equal(latents_of(bench, gone_on), latents_of(bench, whole))
    archives = [read_archive(bench.directory / result["directory"]) for result in (gone_on, whole)]
    assert np.array_equal(archives[0].images, archives[1].images)
    assert not parts.exists()
    assert result_of(bench, *long, "--name", "stopped")["already_there"]


REFUSALS = [
    (("digits", "--encode", "images.npz", "--ddim", "5", "--eta", "0.5"), 2, "without noise", "--eta 0"),
    (("digits", "--encode", "nowhere", "--ddim", "5"), 3, "there is no nowhere", "--encode"),
    (("digits", "--encode", "images.npz", "--ddim", "5", "--num", "11"), 2, "holds 10 images", "--encode"),
    (("digits", "--noise", "runs", "--ddim", "5"), 3, "runs/latents.npy", "--noise"),
]


@pytest.mark.parametrize(("line", "code", "what", "advice"), REFUSALS, ids=[" ".join(r[0]) for r in REFUSALS])
def test_what_cannot_be_encoded_is_refused(line, code, what, advice, bench):
    refused = sampling(bench, *line, "--name", "never")
    assert refused.exit_code() == code, refused.errors
    assert what in refused.errors
    assert advice in refused.errors
    assert not list((bench.run() / "samples").glob("*never*"))


def test_by_default_no_batch_is_larger_than_what_there_is(bench):
    result = result_of(bench, "digits", "--encode", "images.npz", "--num", "2", "--ddim", "2")
    record = read_archive(bench.directory / result["directory"]).record
    assert (record["count"], record["batch_size"]) == (2, 2)
