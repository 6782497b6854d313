"""Untrained runs that chain: digits of 4x4, 8x8 and 16x16, and networks that enlarge one to the next."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffcli.config.sections import DataConfig, DiffusionConfig, ModelConfig, RunConfig, TrainingConfig
from runs_in_processes import Bench, Started, fork
from runs_on_disk import run_of_a_network

NAMES = tuple(f"digit {number}" for number in range(10))
ONE_PROCESS = ("--device", "cpu", "--threads", "1")
_PLAIN = RunConfig(
    data=DataConfig(name="digits", resolution=8, channels=1),
    model=ModelConfig(channels=32, channel_mult=(1.0,), res_blocks=1, attention_resolutions=(), classes=10),
    diffusion=DiffusionConfig(steps=40, schedule="cosine", variance="learned_range", objective="hybrid"),
    training=TrainingConfig(ema_rates=(0.9,)),
)


def changed(config: RunConfig, **sections: dict[str, Any]) -> RunConfig:
    """The configuration with some settings of some sections changed."""
    replaced = {
        name: dataclasses.replace(getattr(config, name), **settings) for name, settings in sections.items()
    }
    return dataclasses.replace(config, **replaced)


def enlarging(low: int, high: int, **model: Any) -> RunConfig:
    """A super-resolution network; its runs sample by 4 steps of DDIM."""
    return changed(
        _PLAIN,
        data={"low_resolution": low, "resolution": high},
        model={"kind": "superres", **model},
        sampling={"steps": 4, "solver": "ddim"},
    )


def drawing(resolution: int, **model: Any) -> RunConfig:
    """A network that draws images from noise alone."""
    return changed(_PLAIN, data={"resolution": resolution}, model=model)


# those whose images are encoded and interpolated, and how
LATENT_RUNS = {
    "digits": (drawing(8), NAMES),
    "classless": (drawing(8, classes=0), NAMES),
    "enlarge": (enlarging(4, 8), NAMES),
}
DDIM = ("--ddim", "6", "--batch-size", "4")


def make_runs(directory: Path, configs: dict[str, tuple[RunConfig, tuple[str, ...]]]) -> Bench:
    """A run of each configuration, called so, whose data had classes of those names."""
    bench = Bench(directory=directory)
    for name, (config, class_names) in configs.items():
        run_of_a_network(bench.runs, config, name, class_names=class_names)
    return bench


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One archive as its directory holds it."""

    directory: Path
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64] | None
    record: dict[str, Any]


def read_archive(directory: Path) -> Archive:
    """An archive, its labels, if any, and its record."""
    (path,) = directory.glob("samples_*.npz")
    with np.load(path, allow_pickle=False) as archive:
        images, labels = archive["arr_0"], archive.get("arr_1")
    record = json.loads((directory / "sample.json").read_text())
    return Archive(directory=directory, images=images, labels=labels, record=record)


def sampling(bench: Bench, *arguments: str, **settings: Any) -> Started:
    """`diffcli sample` in one process on one thread, with a JSON result."""
    return fork(bench, "sample", *arguments, *ONE_PROCESS, "--json", **settings)


def result_of(bench: Bench, *arguments: str) -> Any:
    """The JSON result of `diffcli sample`."""
    return json.loads(sampling(bench, *arguments).succeeds().output)


def drawn(bench: Bench, *arguments: str) -> Archive:
    """The archive that `diffcli sample` made."""
    return read_archive(bench.directory / result_of(bench, *arguments)["directory"])
