"""A small grid of samples in the middle of a training."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call

from diffcli import durable
from diffcli.commands.assemble import Assembly
from diffcli.config.sections import RunConfig
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.respacing import ddim_timesteps
from diffcli.images.conversion import to_uint8
from diffcli.images.grid import grid, write_png
from diffcli.models.conditioning import Conditioning
from diffcli.sampling.noise import initial_noise, step_noise
from diffcli.sampling.solve import SolverSettings, solve

_COUNT = 16
_STEPS = 25
_SHOWN_PIXELS = 64


def draw_preview(config: RunConfig, assembly: Assembly, path: Path) -> None:
    """Draw the same few samples as every preview of the run, by DDIM from the first moving average.

    A super-resolution network has nothing to enlarge here, and a classifier draws nothing: they get none.
    """
    if config.model.kind != "unet":
        return
    device = assembly.state.sums.tensor().device
    size, seed = config.data.resolution, config.training.seed
    samples = torch.arange(_COUNT, device=device)
    shape = (config.data.channels, size, size)
    weights = assembly.state.averages[0].weights if assembly.state.averages else {}
    classes = config.model.classes
    conditioning = Conditioning(y=samples % classes if classes else None)

    def denoiser(x: Tensor, t: Tensor) -> Tensor:
        output: Tensor = functional_call(assembly.network, weights, (x, t, conditioning))
        return output

    steps = min(_STEPS, config.diffusion.steps)
    diffusion = build_diffusion(config.diffusion, ddim_timesteps(config.diffusion.steps, steps))
    settings = SolverSettings(solver="ddim", eta=0.0, clip=config.sampling.clip)
    assembly.network.eval()
    x = initial_noise(seed, samples, shape)
    for solved in solve(
        denoiser, diffusion, x, lambda step: step_noise(seed, samples, shape, step=step), settings
    ):
        x = solved.x
    images = to_uint8(x).permute(0, 2, 3, 1).cpu().numpy()
    with durable.storage_errors(path):
        path.parent.mkdir(exist_ok=True)
    write_png(path, grid(images, magnify=max(1, _SHOWN_PIXELS // size)))
