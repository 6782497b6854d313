"""Samples of a network in training, by DDIM from its first moving average."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.func import functional_call

from diffcli.commands.assemble import Assembly
from diffcli.config.sections import RunConfig
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.respacing import ddim_timesteps
from diffcli.images.conversion import to_uint8
from diffcli.models.conditioning import Conditioning
from diffcli.sampling.noise import initial_noise, step_noise
from diffcli.sampling.solve import SolverSettings, solve


@dataclass(frozen=True, kw_only=True)
class SampleNumbers:
    """Which samples of a seed, int64 [N] on the device, and their classes, int64 [N], or None."""

    seed: int
    samples: Tensor
    classes: Tensor | None


def draw_samples(config: RunConfig, assembly: Assembly, numbers: SampleNumbers, *, steps: int) -> Tensor:
    """The images uint8 [N, H, W, C], in the training's precision; no trace is left but the eval mode.

    steps: of DDIM, at most as many as the chain has. Without moving averages they are of the raw weights.
    """
    seed, samples = numbers.seed, numbers.samples
    shape = (config.data.channels, config.data.resolution, config.data.resolution)
    weights = assembly.state.averages[0].weights if assembly.state.averages else {}
    conditioning = Conditioning(y=numbers.classes)

    def denoiser(x: Tensor, t: Tensor) -> Tensor:
        output: Tensor = functional_call(assembly.network, weights, (x, t, conditioning))
        return output

    diffusion = build_diffusion(config.diffusion, ddim_timesteps(config.diffusion.steps, steps))
    settings = SolverSettings(solver="ddim", eta=0.0, clip=config.sampling.clip)
    assembly.network.eval()
    x = initial_noise(seed, samples, shape)
    for solved in solve(
        denoiser, diffusion, x, lambda step: step_noise(seed, samples, shape, step=step), settings
    ):
        x = solved.x
    return to_uint8(x).permute(0, 2, 3, 1)
