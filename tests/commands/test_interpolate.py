"""`sample --interpolate`: frames between two x_T, the ends being the own samples of seeds and images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

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
from runs_in_processes import Bench, fork, fork_ranks

PHOTOS = np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    made = make_runs(tmp_path_factory.mktemp("interpolate"), LATENT_RUNS)
    for name, photo in zip(("a.png", "b.png"), PHOTOS, strict=True):
        Image.fromarray(photo).save(made.directory / name)
    np.savez(made.directory / "two.npz", arr_0=np.zeros((2, 8, 8, 1), dtype=np.uint8))
    return made


def way(bench, *arguments):
    return result_of(bench, arguments[0], "--interpolate", *arguments[1:], *DDIM)


def frames_of(bench, result):
    return read_archive(bench.directory / result["directory"]).images


@pytest.fixture(scope="module")
def between_seeds(bench):
    return way(bench, "digits", "seed:3", "4", "--frames", "9", "--class", "7", "--name", "seeds")


def test_the_ends_are_bitwise_the_samples_of_the_seeds(bench, between_seeds):
    frames = frames_of(bench, between_seeds)
    assert frames.shape == (9, 8, 8, 1)
    for frame, seed in ((frames[0], "3"), (frames[-1], "4")):
        line = ("digits", "--seed", seed, "--num", "1", "--class", "7", *DDIM)
        assert np.array_equal(drawn(bench, *line).images[0], frame)
    assert len(np.unique(frames.reshape(9, -1), axis=0)) == 9


def test_the_way_is_smooth(bench):
    frames = frames_of(bench, way(bench, "classless", "seed:3", "seed:4", "--frames", "33"))
    steps = np.abs(np.diff(frames.astype(float), axis=0)).mean(axis=(1, 2, 3))
    whole = np.abs(frames[0].astype(float) - frames[-1]).mean()
    assert steps.max() < whole / 2


def test_the_ends_of_images_are_what_they_are_drawn_again_as(bench):
    frames = frames_of(bench, way(bench, "classless", "a.png", "b.png", "--frames", "5"))
    for frame, photo in ((frames[0], "a.png"), (frames[-1], "b.png")):
        encoded = result_of(bench, "classless", "--encode", photo, *DDIM)
        assert np.array_equal(frames_of(bench, encoded)[0], frame)
    mixed = frames_of(bench, way(bench, "classless", "a.png", "seed:4", "--frames", "2"))
    assert np.array_equal(mixed[0], frames[0])
    assert np.array_equal(mixed[1], drawn(bench, "classless", "--seed", "4", "--num", "1", *DDIM).images[0])


def test_strip_and_animation_show_every_frame_in_order(bench, between_seeds):
    directory = bench.directory / between_seeds["directory"]
    assert sorted(path.name for path in directory.iterdir()) == [
        "grid.png",
        "interpolation.gif",
        "sample.json",
        "samples_9x8x8x1.npz",
        "strip.png",
    ]
    frames = frames_of(bench, between_seeds)[..., 0]
    with Image.open(bench.directory / between_seeds["strip"]) as strip:
        pixels = np.asarray(strip)
    assert pixels.shape == (32, 9 * 34 - 2)
    for place, frame in enumerate(frames):
        assert np.array_equal(pixels[::4, 34 * place : 34 * place + 32 : 4], frame)
    with Image.open(bench.directory / between_seeds["animation"]) as animation:
        assert (animation.n_frames, animation.size) == (9, (128, 128))
        # for ever
        assert animation.info["loop"] == 0
        for place, frame in enumerate(frames):
            animation.seek(place)
            assert np.array_equal(np.asarray(animation.convert("L"))[::16, ::16], frame)


def test_the_record_says_what_lies_at_the_ends(bench):
    record = read_archive(
        bench.directory / way(bench, "classless", "a.png", "seed:4", "--frames", "2")["directory"]
    ).record
    first, last = record["start"]["first"], record["start"]["last"]
    assert record["start"]["kind"] == "interpolated"
    assert (first["seed"], last["seed"], last["image_sha256"]) == (None, 4, None)
    encoded = result_of(bench, "classless", "--encode", "a.png", *DDIM)
    assert first["image_sha256"] == encoded["encoding"]["images_sha256"]


def test_two_ranks_draw_the_same_bits(bench):
    line = ("classless", "--interpolate", "a.png", "seed:4", "--frames", "9", *DDIM)
    alone = drawn(bench, *line, "--name", "alone")
    for rank in fork_ranks(bench, 2, "sample", *line, *ONE_PROCESS, "--name", "ranks", "--json"):
        rank.succeeds()
    assert np.array_equal(read_archive(bench.run(2) / "samples" / "ranks").images, alone.images)


def test_an_image_that_is_larger_is_cut_and_said(bench):
    Image.fromarray(np.full((20, 30), 99, dtype=np.uint8)).save(bench.directory / "large.png")
    line = ("classless", "--interpolate", "large.png", "4", "--frames", "2", *DDIM, *ONE_PROCESS)
    told = fork(bench, "sample", *line, "--name", "told").succeeds()
    assert "the image was larger, and brought to 8x8" in told.errors
    rows = dict(row.split("\t") for row in told.output.splitlines())
    assert list(rows) == ["strip", "animation", "archive", "grid", "record"]
    assert rows["animation"] == "runs/run-2/samples/told/interpolation.gif"


REFUSALS = [
    (("digits", "3", "4", *DDIM), 2, "needs one class for all its frames", "--class is not given"),
    (("digits", "3", "4", *DDIM, "--class", "1,2"), 2, "needs one class", "--class 1,2"),
    (("digits", "3", "4", *DDIM, "--class", "1", "--eta", "1"), 2, "without noise", "--eta 0"),
    (("classless", "3", "4", *DDIM, "--class", "1"), 2, "knows no classes", "--class"),
    (("classless", "3", "nowhere.png", *DDIM), 3, "there is no nowhere.png", "--interpolate"),
    (("classless", "3", "runs", *DDIM), 2, "runs is a directory", "seed:3"),
    (("classless", "3", "two.npz", *DDIM), 2, "two.npz is an archive", "seed:3"),
    (("enlarge", "3", "4"), 2, "enlarges small images", "--low-res"),
]


@pytest.mark.parametrize(("line", "code", "what", "advice"), REFUSALS, ids=[" ".join(r[0]) for r in REFUSALS])
def test_what_has_no_way_between_is_refused(line, code, what, advice, bench):
    refused = sampling(bench, line[0], "--interpolate", *line[1:], "--name", "never")
    assert refused.exit_code() == code, refused.errors
    assert what in refused.errors
    assert advice in refused.errors
    assert not list(bench.runs.glob("run-*/samples/*never*"))
