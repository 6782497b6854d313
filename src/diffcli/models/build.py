"""From a configuration to its network."""

from __future__ import annotations

import torch

from diffcli.config.sections import RunConfig
from diffcli.config.shapes import embedded_classes, shape_problems
from diffcli.errors import UsageError
from diffcli.models.classifier import Classifier
from diffcli.models.super_resolution import SuperResolutionUNet
from diffcli.models.unet import UNet


def build_network(config: RunConfig) -> UNet | Classifier:
    """The network of a configuration, its weights from torch's generator; UsageError if impossible."""
    return build_classifier(config) if config.model.kind == "classifier" else build_model(config)


def build_model(config: RunConfig) -> UNet | SuperResolutionUNet:
    """The network that predicts for a diffusion; UsageError if impossible, or if it is a classifier."""
    if config.model.kind == "classifier":
        raise UsageError(
            "a classifier draws no images and has no likelihood",
            where="model.kind = classifier",
            remedy="name a diffusion model, which a classifier may guide",
        )
    _require_possible(config)
    network = SuperResolutionUNet if config.model.kind == "superres" else UNet
    return network(
        config.model,
        resolution=config.data.resolution,
        in_channels=config.data.channels,
        out_channels=output_channels(config),
        embedded_classes=embedded_classes(config),
    )


def build_classifier(config: RunConfig) -> Classifier:
    """The network that tells the class of a noisy image; UsageError if impossible, or no classifier."""
    if config.model.kind != "classifier":
        raise UsageError(
            "this is no classifier",
            where=f"model.kind = {config.model.kind}",
            remedy="name a run whose model.kind is classifier",
        )
    _require_possible(config)
    return Classifier(config.model, resolution=config.data.resolution, in_channels=config.data.channels)


def _require_possible(config: RunConfig) -> None:
    problems = shape_problems(config)
    if problems:
        told = [f"{problem.path} = {problem.value}: must be {problem.allowed}" for problem in problems]
        raise UsageError("no network has these shapes", where="\n".join(told))


def output_channels(config: RunConfig) -> int:
    """Channels of a U-Net's output: the prediction and, if it is learned, the variance."""
    learns_variance = config.diffusion.variance in ("learned", "learned_range")
    return 2 * config.data.channels if learns_variance else config.data.channels


def parameter_count(config: RunConfig) -> int:
    """Number of the network's parameters, without memory for them."""
    with torch.device("meta"):
        network = build_network(config)
    return sum(parameter.numel() for parameter in network.parameters())
