"""Trial 14: files that would run code if they were unpickled, in every place that takes a file."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from aftermath import CORRUPT, MISSING, USAGE, assert_ended, assert_sound, listed_runs
from forged_checkpoints import agree
from runs_in_processes import NEW, PRESET, Bench, checkpoint, fork
from traps import TRAPS, Trap, bare_pickle, torch_zip

SAMPLE = ("sample", "run-1", "--num", "1", "--steps", "2", "--device", "cpu")


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_goes_off_where_it_is_unpickled(trap, tmp_path):
    # else the tests below would prove nothing
    content = TRAPS[trap](Trap(tmp_path / "canary"))
    if trap.startswith("pickled"):
        content = zipfile.ZipFile(io.BytesIO(content)).read("arr_0.npy")
    if trap.endswith(".pt"):
        torch.load(io.BytesIO(content), weights_only=False)
    elif trap.startswith("objects"):
        loaded = np.load(io.BytesIO(content), allow_pickle=True)
        loaded = loaded["arr_0"] if trap.endswith("z") else loaded
    else:
        pickle.loads(content)
    assert (tmp_path / "canary").is_dir()


@pytest.fixture(scope="module")
def upsampler(trained, tmp_path_factory) -> Iterator[Bench]:
    """A copy of the bench with a super-resolution run besides, run-2; no test here changes it."""
    directory = tmp_path_factory.mktemp("upsampler")
    shutil.copytree(trained.directory, directory, dirs_exist_ok=True)
    preset = PRESET.replace("[model]", 'low_resolution = 4\n[model]\nkind = "superres"')
    (directory / "superres.toml").write_text(preset)
    bench = Bench(directory=directory)
    fork(bench, "train", "--preset", "./superres.toml", "--steps", "1", "--device", "cpu").succeeds()
    yield bench
    assert_sound(bench)


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_as_noise_or_small_image_is_refused(trap, upsampler, tmp_path):
    path = tmp_path / trap
    path.write_bytes(TRAPS[trap](Trap(tmp_path / "canary")))
    refused = fork(upsampler, *SAMPLE, "--noise", str(path))
    assert_ended(refused, CORRUPT, str(path), "--noise")
    line = ("sample", "run-2", "--num", "1", "--steps", "2", "--device", "cpu", "--low-res", str(path))
    assert_ended(fork(upsampler, *line), CORRUPT, str(path), "--low-res")
    line = ("sample", "run-1", "--ddim", "2", "--device", "cpu", "--encode", str(path))
    assert_ended(fork(upsampler, *line), CORRUPT, str(path), "--encode")
    line = (*line[:-2], "--class", "1", "--interpolate", "1", str(path))
    assert_ended(fork(upsampler, *line), CORRUPT, str(path), "--interpolate")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_in_the_directory_of_an_archive_is_refused(trap, upsampler, tmp_path):
    content = TRAPS[trap](Trap(tmp_path / "canary"))
    (tmp_path / "sample.json").write_text("[" * 100_000)
    (tmp_path / "latents.npy").write_bytes(content)
    (tmp_path / "samples_1x4x4x1.npz").write_bytes(content)
    refused = fork(upsampler, *SAMPLE, "--noise", str(tmp_path))
    assert_ended(refused, CORRUPT, str(tmp_path / "latents.npy"), "--noise")
    line = ("sample", "run-2", "--num", "1", "--steps", "2", "--device", "cpu", "--low-res", str(tmp_path))
    assert_ended(fork(upsampler, *line), CORRUPT, str(tmp_path / "samples_1x4x4x1.npz"), "--low-res")
    assert not (tmp_path / "canary").exists()


def npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


SMALL = npy(np.zeros((1, 4, 4, 1), np.uint8))
NO_ARCHIVES = {
    "cut": npz(arr_0=SMALL)[:-30],
    "empty": b"",
    "one array": SMALL,
    "a number": npz(arr_0=npy(np.uint8(7))),
    "text for images": npz(arr_0=b"text"),
    "text for labels": npz(arr_0=SMALL, arr_1=b"text"),
    "labels only": npz(arr_1=npy(np.zeros(1, np.int64))),
    "cut images": npz(arr_0=SMALL[:-5]),
    "images that are not there": npz(arr_0=npy(np.zeros((1, 4, 4, 1), np.uint8))[:128]),
    "one image for two": npz(arr_0=SMALL),
}


@pytest.mark.parametrize("content", NO_ARCHIVES)
def test_what_is_no_archive_of_small_images_is_refused(content, upsampler, tmp_path):
    (tmp_path / "small.npz").write_bytes(NO_ARCHIVES[content])
    line = ("sample", "run-2", "--num", "2", "--device", "cpu", "--low-res", str(tmp_path / "small.npz"))
    status = USAGE if content in ("a number", "one image for two") else CORRUPT
    assert_ended(fork(upsampler, *line), status, "small.npz", "--low-res")


CHECKPOINT_PLACES = {
    "in place of the weights": ("model.safetensors", [*SAMPLE, "--ema", "none"]),
    "in place of the average": ("ema-0.9.safetensors", [*SAMPLE]),
    "in place of the optimizer": ("optimizer.safetensors", ["train", "--resume", "run-1", "--steps", "7"]),
    "in place of the counters": ("state.json", ["train", "--resume", "run-1", "--steps", "7"]),
}


@pytest.mark.parametrize(
    ("place", "trap"),
    [("in place of the weights", trap) for trap in ("a.pkl", "a.pt", "legacy.pt")]
    + [(place, "a.pkl") for place in list(CHECKPOINT_PLACES)[1:]],
)
def test_a_trap_in_a_checkpoint_whose_manifest_agrees_is_corrupt(place, trap, bench, tmp_path):
    file, line = CHECKPOINT_PLACES[place]
    directory = checkpoint(bench.run(), 6)
    (directory / file).write_bytes(TRAPS[trap](Trap(tmp_path / "canary")))
    agree(directory)
    assert_ended(fork(bench, *line), CORRUPT, file)
    assert not (tmp_path / "canary").exists()


def test_a_trap_beside_the_files_of_a_checkpoint_is_refused(bench, tmp_path):
    (checkpoint(bench.run(), 6) / "model.pt").write_bytes(torch_zip(Trap(tmp_path / "canary")))
    assert_ended(fork(bench, *SAMPLE, "--checkpoint", "6"), CORRUPT, "model.pt")
    assert_ended(fork(bench, *SAMPLE), 0, "model.pt", "damaged")
    assert not (tmp_path / "canary").exists()
    assert_sound(bench)


@pytest.mark.parametrize(
    ("file", "trap"),
    [
        ("images.npy", "a.pkl"),
        ("images.npy", "objects.npz"),
        ("images.npy", "objects.npy"),
        ("labels.npy", "a.pt"),
        ("labels.npy", "objects.npy"),
        ("dataset.json", "a.pkl"),
    ],
)
def test_a_trap_in_a_prepared_dataset_is_corrupt(file, trap, bench, tmp_path):
    for split in ("train", "test"):
        (bench.directory / "data" / "digits" / split / file).write_bytes(
            TRAPS[trap](Trap(tmp_path / "canary"))
        )
    for line in (NEW, ("eval", "run-1", "--nll", "--data", "data/digits", "--device", "cpu")):
        assert_ended(fork(bench, *line), CORRUPT, "data/digits", file)
    assert not (tmp_path / "canary").exists()
    assert_sound(bench)


OTHER_PLACES: dict[str, tuple[Callable[[str], list[str]], int]] = {
    "data": (lambda file: [*NEW, "--data", file], USAGE),
    "preset": (lambda file: ["train", "--preset", f"./{file}"], USAGE),
    "folder": (lambda file: ["prepare", "folder", file, "--size", "8"], MISSING),
    "source": (lambda file: ["prepare", "folder", "--source", file, "--size", "8"], MISSING),
    "run": (lambda file: ["sample", f"./{file}"], MISSING),
}


@pytest.mark.parametrize("trap", ["a.pkl", "a.pt"])
@pytest.mark.parametrize("place", OTHER_PLACES)
def test_a_trap_is_no_dataset_preset_or_run(place, trap, trained, tmp_path):
    line, status = OTHER_PLACES[place]
    path = trained.directory / trap
    path.write_bytes(TRAPS[trap](Trap(tmp_path / "canary")))
    assert_ended(fork(trained, *line(trap)), status, trap)
    path.unlink()
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("trap", ["a.pkl", "a.pt", "objects.npz"])
def test_a_trap_named_like_an_image_is_listed(trap, trained, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "cat_1.png").write_bytes(TRAPS[trap](Trap(tmp_path / "canary")))
    refused = fork(trained, "prepare", "folder", str(folder), "--size", "8")
    assert_ended(refused, CORRUPT, "1 of 1 images", "cat_1.png")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("name", ["weights.pt", "ema_0.9999_000006.safetensors", "there/model000006.pt"])
def test_a_trap_in_place_of_published_weights_is_corrupt_and_makes_no_run(trap, name, trained, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(TRAPS[trap](Trap(tmp_path / "canary")))
    given = path.parent if name.startswith("there") else path
    refused = fork(trained, "runs", "import", str(given), "--preset", "./tiny.toml")
    assert_ended(refused, CORRUPT, str(path))
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("trap", ["a.pkl", "a.pt", "legacy.pt"])
def test_a_trap_in_place_of_an_optimizer_beside_good_weights_is_corrupt(trap, bench, tmp_path):
    export = ("runs", "export", "run-1", "--format", "openai", "--out", "there")
    fork(bench, *export).succeeds()
    (bench.directory / "there" / "opt000006.pt").write_bytes(TRAPS[trap](Trap(tmp_path / "canary")))
    refused = fork(bench, "runs", "import", "there", "--preset", "./tiny.toml")
    assert_ended(refused, CORRUPT, "there/opt000006.pt")
    assert not (tmp_path / "canary").exists()
    assert [run["id"] for run in listed_runs(bench)] == ["run-1"]
    assert_sound(bench)


def test_a_trap_in_a_run_record_is_corrupt(bench, tmp_path):
    (bench.run() / "run.json").write_bytes(bare_pickle(Trap(tmp_path / "canary")))
    assert_ended(fork(bench, *SAMPLE), CORRUPT, "run.json")
    listed = listed_runs(bench)
    assert [run["state"] for run in listed] == ["unreadable"]
    assert not (tmp_path / "canary").exists()
