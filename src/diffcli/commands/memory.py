"""How much memory and disk a training needs, worked out without allocating any of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffcli.config.sections import RunConfig
from diffcli.models.build import build_model
from diffcli.models.conditioning import Conditioning

_FLOAT32_BYTES = 4
_HALF_BYTES = 2
_ADAM_MOMENTS = 2


@dataclass(frozen=True, kw_only=True)
class TrainingFootprint:
    """Bytes of one process, and of its files."""

    parameters: int
    state_bytes: int
    activation_bytes_per_image: int
    checkpoint_bytes: int


def footprint(config: RunConfig) -> TrainingFootprint:
    """The footprint of training: exact for parameters and checkpoints, an estimate for the activations."""
    with torch.device("meta"):
        network = build_model(config)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    averages = len(config.training.ema_rates)
    # weights and gradient, both moments of Adam, and every moving average
    state = parameters * _FLOAT32_BYTES * (2 + _ADAM_MOMENTS + averages)
    stored = parameters * _FLOAT32_BYTES * (1 + _ADAM_MOMENTS + averages)
    element_bytes = _FLOAT32_BYTES if config.training.precision == "fp32" else _HALF_BYTES
    return TrainingFootprint(
        parameters=parameters,
        state_bytes=state,
        activation_bytes_per_image=_activation_elements(network, config) * element_bytes,
        checkpoint_bytes=stored,
    )


def _activation_elements(network: nn.Module, config: RunConfig) -> int:
    """Elements that the leaf modules put out for one image: about what the backward pass needs kept."""
    kept = 0

    def count(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal kept
        kept += output.numel()

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    size, channels = config.data.resolution, config.data.channels
    with torch.device("meta"):
        x = torch.empty(1, channels, size, size)
        low = config.data.low_resolution
        conditioning = Conditioning(
            y=torch.empty(1, dtype=torch.int64) if config.model.classes else None,
            low_res=torch.empty(1, channels, low, low) if low else None,
        )
        network(x, torch.empty(1), conditioning)
    return kept
