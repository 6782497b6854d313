"""What a user can get wrong: each a short error that names it, with its exit code, and nothing half-done.

The commands run in real processes that a server forks after it has imported torch once.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import struct
import sys
import zlib
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffcli_process import Ended, fork_server, shell_environment
from permissions import forgo_root_rights

USAGE, MISSING, CORRUPT, STORAGE = 2, 3, 5, 6
MOST_LINES = 8
ABSENT_DEVICE = "mps" if torch.cuda.is_available() else "cuda"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a process may not do, though its user could."""

    file_bytes: int | None = None
    root_rights: bool = True


def run_forked(line: str, directory: Path, limits: Limits | None = None) -> Ended:
    """Run diffcli on a line of arguments without quotes, in a directory."""
    server = fork_server()
    (out, to_out), (err, to_err) = server.Pipe(duplex=False), server.Pipe(duplex=False)
    process = server.Process(
        target=be_diffcli, args=(line.split(" "), directory, to_out, to_err, limits or Limits())
    )
    process.start()
    to_out.close()
    to_err.close()
    told, remarked = all_from(out), all_from(err)
    process.join(60)
    assert process.exitcode is not None, f"{line} hangs"
    return Ended(status=process.exitcode, out=told, err=remarked)


def all_from(pipe: Connection) -> str:
    with pipe, os.fdopen(os.dup(pipe.fileno())) as file:
        return file.read()


def be_diffcli(
    arguments: list[str], directory: Path, out: Connection, err: Connection, limits: Limits
) -> None:
    """Be `diffcli` from here on: streams, environment, limits, arguments; ends with SystemExit."""
    from diffcli.__main__ import main

    os.chdir(directory)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    out.close()
    err.close()
    os.environ.clear()
    os.environ.update(shell_environment())
    if not limits.root_rights:
        forgo_root_rights()
    if limits.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
    sys.argv = ["diffcli", *arguments]
    main()


def png_of_size(width: int, height: int) -> bytes:
    """A small file that claims to hold many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def damage(file: Path) -> None:
    """Keep the first half."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


@pytest.fixture(scope="module")
def place(workshop, tmp_path_factory) -> Path:
    """A copy of the workshop with everything in it that can be wrong; no test here changes it."""
    place = tmp_path_factory.mktemp("wrong") / "place"
    shutil.copytree(workshop.directory, place)
    presets = {
        "malformed": b"[training]\nlr = = 1\n",
        "latin": "[training]\nlr = 1e-3 # größe\n".encode("latin-1"),
        "twice": b"[training]\nlr = 1e-3\nlr = 2e-3\n",
        "wrong": b"[training]\nlrr = 1e-3\nsteps = 'many'\n[modle]\nchannels = 3\n",
    }
    for name, content in presets.items():
        (place / f"{name}.toml").write_bytes(content)
    for name in ("text", "cut", "empty", "bomb", "zero"):
        (place / name).mkdir()
        if name != "empty":
            Image.fromarray(np.full((16, 16, 3), 99, dtype=np.uint8)).save(place / name / "cat_1.png")
    (place / "text" / "dog_1.png").write_text("not an image\n")
    damage(place / "cut" / "cat_1.png")
    (place / "bomb" / "dog_1.png").write_bytes(png_of_size(20000, 20000))
    (place / "zero" / "dog_1.png").write_bytes(b"")
    for name in ("cut_data", "label_data", "newer_data"):
        shutil.copytree(place / "data" / "digits", place / "data" / name)
    damage(place / "data" / "cut_data" / "train" / "images.npy")
    labels = np.load(place / "data" / "label_data" / "train" / "labels.npy")
    labels[5] = 10
    np.save(place / "data" / "label_data" / "train" / "labels.npy", labels)
    dataset = place / "data" / "newer_data" / "train" / "dataset.json"
    dataset.write_text(json.dumps(json.loads(dataset.read_text()) | {"schema": 99}))
    (place / "file").write_text("neither directory nor array\n")
    np.save(place / "noise.npy", np.zeros((2, 1, 8, 8), dtype=np.float32))
    np.save(place / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)

    runs = place / "runs"
    damage(runs / "run-1" / "checkpoints" / "step-000002" / "ema-0.9.safetensors")
    shutil.copytree(runs / "run-1", runs / "run-2")
    record = json.loads((runs / "run-2" / "run.json").read_text())
    (runs / "run-2" / "run.json").write_text(json.dumps(record | {"id": "run-2"}))
    for checkpoint in (runs / "run-2" / "checkpoints").iterdir():
        damage(checkpoint / "model.safetensors")
    shutil.copytree(runs / "run-1", runs / "run-3")
    (runs / "run-3" / "run.json").write_text("{")
    (runs / "run-4").write_text("a file where a run should be\n")
    return place


TINY = "train --preset ./tiny.toml"
CASES = [
    # ---- configuration ----
    ("train --preset cifra10", MISSING, ["cifra10", "did you mean cifar10"]),
    ("train --preset ./nowhere.toml", MISSING, ["nowhere.toml"]),
    ("train --preset ./malformed.toml", USAGE, ["malformed.toml", "line 2"]),
    ("train --preset ./latin.toml", USAGE, ["latin.toml", "UTF-8", "line 2"]),
    ("train --preset ./twice.toml", USAGE, ["twice.toml", "line 3"]),
    ("train --preset ./wrong.toml", USAGE, ["training.lrr", "training.lr?", "training.steps", "modle"]),
    ("train --preset ./text", USAGE, ["text is a directory"]),
    (f"{TINY} --set training.lrr=1", USAGE, ["training.lrr", "did you mean training.lr"]),
    (f"{TINY} --set training.lr=fast", USAGE, ["training.lr", "fast", "number"]),
    (f"{TINY} --set training.lr=nan", USAGE, ["training.lr", "nan", "finite"]),
    (f"{TINY} --set training.lr", USAGE, ["--set training.lr", "VALUE"]),
    (f"{TINY} --steps 0", USAGE, ["training.steps", "--steps"]),
    (f"{TINY} --set training.label_drop=1", USAGE, ["training.label_drop", "from 0 up to, but not, 1"]),
    (
        f"{TINY} --set training.label_drop=0.1 --set model.classes=0",
        USAGE,
        ["training.label_drop = 0.1", "no labels to drop"],
    ),
    (
        f"{TINY} --set training.lr=fast --set model.chanels=3 --seed -1",
        USAGE,
        ["3 problems", "training.lr", "model.channels", "training.seed", "(--set)", "(--seed)"],
    ),
    ("train", USAGE, ["--preset", "--resume"]),
    ("train --preset digits --resume run-1", USAGE, ["--preset", "--resume"]),
    (f"{TINY} --precision fp8", USAGE, ["--precision", "fp8", "bf16"]),
    (f"{TINY} --device {ABSENT_DEVICE}", USAGE, [ABSENT_DEVICE, "--device", "cpu"]),
    (f"{TINY} --device tpu", USAGE, ["tpu", "cuda"]),
    (f"{TINY} --gpus 8", USAGE, ["--gpus"]),
    (f"{TINY} --name a/b", USAGE, ["a/b"]),
    # ---- data ----
    ("train --preset cifar10", MISSING, ["cifar10", "diffcli prepare "]),
    (f"{TINY} --data-home empty", MISSING, ["digits", "empty", "diffcli prepare digits"]),
    (f"{TINY} --data nowhere", MISSING, ["nowhere"]),
    (f"{TINY} --data file", USAGE, ["file"]),
    (f"{TINY} --data empty --set model.classes=0", MISSING, ["empty", "png"]),
    (f"{TINY} --set data.name=digit", MISSING, ["digit", "did you mean digits"]),
    (f"{TINY} --set data.split=val", MISSING, ["val", "train"]),
    (f"{TINY} --set data.resolution=16", USAGE, ["data.resolution", "16", "8x8"]),
    (f"{TINY} --set data.channels=3", USAGE, ["data.channels"]),
    (f"{TINY} --set model.classes=7", USAGE, ["model.classes", "7", "10"]),
    (f"{TINY} --set data.name=cut_data", CORRUPT, ["data/cut_data/train", "images.npy", "--force"]),
    (f"{TINY} --set data.name=label_data", CORRUPT, ["labels.npy", "image 5 is 10", "10 classes"]),
    (f"{TINY} --set data.name=newer_data", CORRUPT, ["schema 99", "newer"]),
    ("prepare folder nowhere --size 8", MISSING, ["nowhere"]),
    ("prepare folder empty --size 8", MISSING, ["empty"]),
    ("prepare folder file --size 8", MISSING, ["file is not a directory"]),
    ("prepare folder text --size 8", CORRUPT, ["1 of 2", "dog_1.png"]),
    ("prepare folder cut --size 8", CORRUPT, ["1 of 1", "cat_1.png"]),
    ("prepare folder bomb --size 8", CORRUPT, ["1 of 2", "dog_1.png"]),
    ("prepare folder zero --size 8", CORRUPT, ["1 of 2", "dog_1.png"]),
    ("prepare folder text --size 0", USAGE, ["--size"]),
    ("prepare mnist", USAGE, ["mnist"]),
    # ---- runs ----
    ("runs show run-11", MISSING, ["run-11", "did you mean run-1"]),
    ("runs show run-3", CORRUPT, ["run-3", "run.json"]),
    ("runs rm run-1", USAGE, ["--yes"]),
    ("train --resume run-11", MISSING, ["run-11", "did you mean run-1"]),
    ("train --resume run-1 --set model.channels=64", USAGE, ["model.channels", "run-1"]),
    ("train --resume run-1 --data text", USAGE, ["text"]),
    ("train --resume run-2", CORRUPT, ["model.safetensors"]),
    ("sample run-11", MISSING, ["run-11", "did you mean run-1"]),
    ("sample run-1 --checkpoint 2", CORRUPT, ["step-000002", "ema-0.9.safetensors"]),
    ("sample run-1 --checkpoint 7", MISSING, ["7", "2, 3"]),
    ("sample run-2", CORRUPT, ["model.safetensors"]),
    ("eval run-11 --nll", MISSING, ["run-11", "did you mean run-1"]),
    ("eval run-1 --metrics fdi", USAGE, ["--metrics", "fid"]),
    ("eval run-1 --timesteps 5", USAGE, ["--timesteps is for --nll"]),
    ("eval run-1 --nll --features pixels", USAGE, ["--nll", "--features"]),
    ("eval run-1 --features pixels --reference nowhere", MISSING, ["no reference 'nowhere'"]),
    ("eval empty --features pixels --metrics is", MISSING, ["no images"]),
    # ---- sampling ----
    ("sample run-1 --ema 0.5", USAGE, ["0.5", "0.9", "--ema"]),
    ("sample run-1 --class cat", USAGE, ["cat", "--class"]),
    ("sample run-1 --class 12", USAGE, ["12", "--class"]),
    ("sample run-1 --steps many", USAGE, ["many", "250"]),
    ("sample run-1 --ddim 21", USAGE, ["21", "20", "--ddim"]),
    ("sample run-1 --steps 5 --ddim 5", USAGE, ["--steps", "--ddim"]),
    ("sample run-1 --eta 1", USAGE, ["--eta", "--ddim"]),
    ("sample run-1 --num 0", USAGE, ["--num"]),
    ("sample run-1 --guidance 4", USAGE, ["--guidance", "--classifier RUN"]),
    ("sample run-1 --guidance much", USAGE, ["--guidance", "number"]),
    ("sample run-1 --classifier run-1", USAGE, ["--classifier", "run-1 is no classifier", "unet"]),
    ("sample run-1 --classifier run-11", MISSING, ["run-11", "did you mean run-1"]),
    ("sample run-1 --cfg 2", USAGE, ["--cfg", "training.label_drop"]),
    ("sample run-1 --cfg 2 --classifier run-1", USAGE, ["--cfg", "--classifier", "exclude each other"]),
    ("sample run-1 --seed 9223372036854775808", USAGE, ["--seed"]),
    ("sample run-1 --set model.channels=64", USAGE, ["model.channels", "sampling"]),
    ("sample run-1 --noise noise.npy --num 3", USAGE, ["noise.npy", "[2, 1, 8, 8]", "[3, 1, 8, 8]"]),
    ("sample run-1 --noise nowhere.npy", MISSING, ["nowhere.npy"]),
    ("sample run-1 --noise file", CORRUPT, ["file", "--noise"]),
    ("sample run-1 --noise objects.npy", CORRUPT, ["objects.npy", "--noise"]),
    (f"sample run-1 --device {ABSENT_DEVICE}", USAGE, [ABSENT_DEVICE, "--device"]),
    # ---- cascades ----
    ("sample run-1 --then run-11", MISSING, ["run-11", "did you mean run-1"]),
    ("sample run-1 --then run-1", USAGE, ["run-1 enlarges nothing", "--then"]),
    ("sample run-1 --then-ddim 5", USAGE, ["--then-ddim is for --then"]),
    ("sample run-1 --then-steps 5", USAGE, ["--then-steps is for --then"]),
    ("sample run-1 --then-batch-size 5", USAGE, ["--then-batch-size is for --then"]),
    ("sample run-1 --then run-1 --then-steps 5 --then-ddim 5", USAGE, ["--then-steps", "--then-ddim"]),
    ("sample run-1 --then run-1 --then-steps many", USAGE, ["many", "250"]),
    ("sample run-1 --low-res noise.npy", USAGE, ["--low-res", "super-resolution"]),
    # ---- latent space ----
    ("sample run-1 --encode nowhere --ddim 5", MISSING, ["nowhere", "--encode"]),
    ("sample run-1 --encode file --ddim 5", CORRUPT, ["file", "--encode", ".npz"]),
    ("sample run-1 --encode objects.npy --ddim 5", CORRUPT, ["objects.npy", "--encode"]),
    ("sample run-1 --encode empty --ddim 5", MISSING, ["empty", "no images"]),
    ("sample run-1 --encode text --ddim 5 --class 1", CORRUPT, ["1 of 2", "dog_1.png", "--encode"]),
    ("sample run-1 --encode bomb --ddim 5 --class 1", CORRUPT, ["1 of 2", "dog_1.png"]),
    ("sample run-1 --encode data/digits --ddim 5", USAGE, ["test, train", "--encode data/digits/test"]),
    ("sample run-1 --encode cut_data --ddim 5", MISSING, ["cut_data"]),
    ("sample run-1 --encode data/cut_data/train --ddim 5", CORRUPT, ["images.npy"]),
    ("sample run-1 --encode data/digits/test --ddim 5 --eta 1", USAGE, ["--encode", "--eta 0"]),
    ("sample run-1 --encode data/digits/test --ddim 5 --num 298", USAGE, ["297", "298"]),
    ("sample run-1 --encode empty/x --then run-1", USAGE, ["--encode", "--then"]),
    ("sample run-1 --encode empty/x --noise noise.npy", USAGE, ["--encode", "--noise"]),
    ("sample run-1 --encode empty/x --steps 5", USAGE, ["--encode", "--steps"]),
    ("sample run-1 --encode empty/x --seed 5", USAGE, ["--encode", "--seed"]),
    ("sample run-1 --encode empty/x --cfg 2", USAGE, ["--encode", "--cfg"]),
    ("sample run-1 --encode empty/x --classifier run-1", USAGE, ["--encode", "--classifier"]),
    ("sample run-1 --noise empty --ddim 5", MISSING, ["latents.npy", "--noise"]),
    ("sample run-1 --interpolate 1", USAGE, ["--interpolate"]),
    ("sample run-1 --interpolate 1 2 --ddim 5", USAGE, ["one class", "--class"]),
    ("sample run-1 --interpolate 1 2 --ddim 5 --class 1,2", USAGE, ["one class", "--class 1,2"]),
    ("sample run-1 --interpolate 1 file --ddim 5 --class 1", CORRUPT, ["file", "--interpolate"]),
    ("sample run-1 --interpolate seed:x 2 --ddim 5 --class 1", MISSING, ["seed:x", "--interpolate"]),
    ("sample run-1 --interpolate 1 zero/dog_1.png --ddim 5 --class 1", CORRUPT, ["an empty file"]),
    ("sample run-1 --interpolate 1 empty --ddim 5 --class 1", USAGE, ["directory", "seed:3"]),
    ("sample run-1 --interpolate 1 2 --encode empty", USAGE, ["--interpolate", "--encode"]),
    ("sample run-1 --interpolate 1 2 --then run-1", USAGE, ["--interpolate", "--then"]),
    ("sample run-1 --interpolate 1 2 --num 5", USAGE, ["--interpolate", "--num"]),
    ("sample run-1 --interpolate 1 2 --seed 5", USAGE, ["--interpolate", "--seed"]),
    ("sample run-1 --interpolate 1 2 --low-res empty", USAGE, ["--interpolate", "--low-res"]),
    ("sample run-1 --interpolate 1 2 --guidance 2", USAGE, ["--interpolate", "--guidance"]),
    ("sample run-1 --interpolate 1 2 --frames 1", USAGE, ["--frames"]),
    ("sample run-1 --frames 5", USAGE, ["--frames is for --interpolate"]),
    # ---- places ----
    (f"{TINY} --runs file", STORAGE, ["file"]),
    ("prepare digits --data-home file", STORAGE, ["file"]),
    ("sample run-1 --num 1 --out file/x", STORAGE, ["file"]),
]


@pytest.mark.parametrize(("line", "status", "phrases"), CASES, ids=[case[0] for case in CASES])
def test_a_wrong_input_is_a_short_error(line, status, phrases, place):
    before = everything_in(place)
    done = run_forked(line, place)
    assert done.status == status, done.err
    assert done.out == ""
    assert_short(done.err)
    for phrase in phrases:
        assert phrase in done.err
    made = everything_in(place) ^ before
    assert not {name for name in made if not name.startswith("runs/run-2/")}


def assert_short(message: str) -> None:
    assert "Traceback" not in message
    assert message.count("rror: ") == 1
    assert len(message.splitlines()) <= MOST_LINES
    # advice that would be bad for the user's health
    assert "allow_pickle" not in message
    assert "weights_only" not in message


def everything_in(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_a_bad_image_in_a_plain_folder_is_named_when_training_meets_it(place, tmp_path):
    done = run_forked(
        f"{TINY} --data text --runs {tmp_path} --set model.classes=0 --set data.channels=3", place
    )
    assert done.status == CORRUPT, done.err
    assert "dog_1.png" in done.err
    assert "Traceback" not in done.err
    assert "failed" in run_forked(f"runs ls --runs {tmp_path}", place).out


def test_a_broken_run_is_a_row_like_others(place):
    listed = run_forked("runs ls", place)
    assert listed.status == 0
    states = {row.split("\t")[0]: row.split("\t")[3] for row in listed.out.splitlines()[1:]}
    assert states["run-1"] == "completed"
    assert states["run-3"] == states["run-4"] == "unreadable"


# ---- disks ----


@pytest.fixture
def copy(place, tmp_path) -> Path:
    """A place that a test may change."""
    return shutil.copytree(place, tmp_path / "copy")


@pytest.mark.parametrize("line", [TINY, "prepare digits --data-home runs/data", "sample run-1 --num 1"])
def test_a_read_only_directory(line, copy):
    before = everything_in(copy)
    directories = [path for path in (copy / "runs", *(copy / "runs").rglob("*")) if path.is_dir()]
    for directory in directories:
        directory.chmod(0o555)
    done = run_forked(line, copy, Limits(root_rights=False))
    for directory in directories:
        directory.chmod(0o755)
    assert done.status == STORAGE, done.err
    assert_short(done.err)
    assert "permission denied" in done.err
    assert "change the permissions" in done.err
    assert everything_in(copy) == before


@pytest.mark.parametrize(
    "line", [TINY, f"{TINY} --runs fresh", "prepare digits --data-home fresh", "sample run-1 --num 1"]
)
def test_no_room_for_any_file(line, copy):
    before = everything_in(copy)
    done = run_forked(line, copy, Limits(file_bytes=16))
    assert done.status == STORAGE, done.err
    assert_short(done.err)
    assert "file too large" in done.err
    assert "ulimit" in done.err
    # a run's number stays taken, and sampling can go on; a run, dataset or archive there is not
    left = everything_in(copy) - before
    assert not {name for name in left if not re.search(r"^fresh$|\.ids|\.new$|samples$|\.parts$", name)}
