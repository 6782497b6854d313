"""From a configuration to its network."""

from __future__ import annotations

import torch

from diffcli.config.sections import RunConfig
from diffcli.config.shapes import embedded_classes, shape_problems
from diffcli.errors import UsageError
from diffcli.models.super_resolution import SuperResolutionUNet
from diffcli.models.unet import UNet


def build_model(config: RunConfig) -> UNet | SuperResolutionUNet:
    """The network of a configuration, its weights from torch's generator; UsageError if impossible."""
    problems = shape_problems(config)
    if problems:
        told = [f"{problem.path} = {problem.value}: must be {problem.allowed}" for problem in problems]
        raise UsageError("no network has these shapes", where="\n".join(told))
    network = SuperResolutionUNet if config.model.kind == "superres" else UNet
    return network(
        config.model,
        resolution=config.data.resolution,
        in_channels=config.data.channels,
        out_channels=output_channels(config),
        embedded_classes=embedded_classes(config),
    )


def output_channels(config: RunConfig) -> int:
    """Channels of the network's output: the prediction and, if it is learned, the variance."""
    learns_variance = config.diffusion.variance in ("learned", "learned_range")
    return 2 * config.data.channels if learns_variance else config.data.channels


def parameter_count(config: RunConfig) -> int:
    """Number of the network's parameters, without memory for them."""
    with torch.device("meta"):
        network = build_model(config)
    return sum(parameter.numel() for parameter in network.parameters())
