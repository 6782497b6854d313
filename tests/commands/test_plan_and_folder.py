"""What a dry run tells, and training on a plain folder of images that nobody prepared."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from diffcli.commands.plan import plan
from diffcli.commands.train import train
from diffcli.commands.training_target import TrainRequest
from diffcli.registry.paths import RunPaths
from diffcli.registry.run_record import read_run_record

TINY = """
[data]
resolution = 8
channels = 1
flip = true
[model]
channels = 32
channel_mult = [1]
res_blocks = 1
attention_resolutions = []
classes = 3
[diffusion]
steps = 40
[training]
steps = 4
batch_size = 6
log_every = 2
ema_rates = [0.5]
"""


class Unwatched:
    """A training that nobody watches."""

    def started(self, scope):
        pass

    show = notice = started

    def ended(self):
        pass


@pytest.fixture
def request_for(tmp_path):
    """A request on the CPU, with its homes in a fresh directory."""
    plain = TrainRequest(
        preset=None,
        resume=None,
        parent=None,
        rollback=None,
        data_directory=None,
        name="",
        overrides=(),
        seed=None,
        precision=None,
        steps=None,
        device="cpu",
        threads=1,
        runs_home=tmp_path / "runs",
        data_home=tmp_path / "data",
        command_line=(),
    )
    return lambda **changes: dataclasses.replace(plain, **changes)


def test_a_plan_of_a_published_model_says_what_it_is_and_what_is_missing(request_for, tmp_path):
    planned = plan(request_for(preset="lsun_bedroom", overrides=("training.microbatch=8",)))
    assert planned.preset == "lsun_bedroom"
    assert planned.parameters == 113_676_678
    assert not planned.dataset_ready
    assert "'lsun_bedroom_256' is not prepared" in planned.dataset
    assert planned.remedy == "diffcli prepare lsun --category bedroom --size 256"
    told = {setting.path: (setting.value, setting.origin) for setting in planned.settings}
    assert told["model.channel_mult"] == ("[1.0, 1.0, 2.0, 2.0, 4.0, 4.0]", "preset lsun_bedroom")
    assert told["training.grad_clip"] == ("0.0", "default")
    assert told["training.microbatch"] == ("8", "--set")
    assert {origin for _, origin in told.values()} == {"preset lsun_bedroom", "default", "--set"}
    assert planned.microbatch == 8
    assert planned.images == 1_200_000 * 128
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def folder(tmp_path):
    """A dozen gray images of three classes, larger than the network's and not square."""
    directory = tmp_path / "pictures"
    directory.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 14), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(directory / f"{('cat', 'dog', 'owl')[index % 3]}_{index}.png")
    return directory


def test_a_plain_folder_trains_without_being_prepared(request_for, folder, tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    request = request_for(preset=str(tmp_path / "tiny.toml"), data_directory=folder)
    assert plan(request).dataset_ready
    result = train(request, Unwatched())
    assert (result.state, result.step) == ("completed", 4)
    facts = read_run_record(RunPaths(result.directory)).dataset
    assert facts.weak_hash
    assert (facts.path, facts.count) == (str(folder), 12)
    assert facts.class_names == ("cat", "dog", "owl")
    assert not request.data_home.exists()
    # flips reach the network: everything else is the same without them
    unflipped = train(dataclasses.replace(request, overrides=("data.flip=false",)), Unwatched())
    assert result.last_loss != unflipped.last_loss
