"""A small grid of samples in the middle of a training."""

from __future__ import annotations

from pathlib import Path

import torch

from diffcli import durable
from diffcli.commands.assemble import Assembly
from diffcli.commands.training_samples import SampleNumbers, draw_samples
from diffcli.config.sections import RunConfig
from diffcli.images.grid import grid, write_png

_COUNT = 16
_STEPS = 25
_SHOWN_PIXELS = 64


def draw_preview(config: RunConfig, assembly: Assembly, path: Path) -> None:
    """Draw the same few samples as every preview of the run, by DDIM from the first moving average.

    A super-resolution network has nothing to enlarge here, and a classifier draws nothing: they get none.
    """
    if config.model.kind != "unet":
        return
    samples = torch.arange(_COUNT, device=assembly.state.sums.tensor().device)
    classes = config.model.classes
    numbers = SampleNumbers(
        seed=config.training.seed, samples=samples, classes=samples % classes if classes else None
    )
    images = draw_samples(config, assembly, numbers, steps=min(_STEPS, config.diffusion.steps))
    with durable.storage_errors(path):
        path.parent.mkdir(exist_ok=True)
    magnify = max(1, _SHOWN_PIXELS // config.data.resolution)
    write_png(path, grid(images.cpu().numpy(), magnify=magnify))
