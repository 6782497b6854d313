"""How much memory and disk a training needs, worked out without allocating any of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from diffcli.config.sections import RunConfig, TrainingConfig
from diffcli.models.activations import activation_bytes_per_image
from diffcli.models.build import parameter_count

_FLOAT32_BYTES = 4
_HALF_BYTES = 2
_ADAM_MOMENTS = 2
# what glibc's allocator was seen to take for activations, at most, as a multiple of their bytes
_PLACEMENT_FACTOR = 2.5


@dataclass(frozen=True, kw_only=True)
class TrainingFootprint:
    """Bytes of one process, and of its files."""

    parameters: int
    state_bytes: int
    activation_bytes_per_image: int
    checkpoint_bytes: int


def footprint(config: RunConfig) -> TrainingFootprint:
    """The footprint of training: exact for parameters and checkpoints, an estimate for the activations."""
    parameters = parameter_count(config)
    averages = _averages(config.training)
    # weights and gradient, both moments of Adam, and every moving average
    state = parameters * _FLOAT32_BYTES * (2 + _ADAM_MOMENTS + averages)
    if config.training.precision != "fp32":
        # autocast's copies of the weights
        state += parameters * _HALF_BYTES
    return TrainingFootprint(
        parameters=parameters,
        state_bytes=state,
        activation_bytes_per_image=activation_bytes_per_image(config),
        checkpoint_bytes=parameters * _FLOAT32_BYTES * (1 + _ADAM_MOMENTS + averages),
    )


def estimated_to_fit(config: RunConfig, device: torch.device, available_bytes: int) -> Callable[[int], bool]:
    """Whether a microbatch should fit into what is available to this process once its state is assembled.

    Always true but on a CPU: there the system promises memory that it does not have, and ends a process that
    comes to use it, where other devices refuse.
    """
    if device.type != "cpu":
        return lambda _microbatch: True
    needs = footprint(config)
    present = needs.parameters * _FLOAT32_BYTES * (1 + _averages(config.training))
    # a save copies what it writes
    left = available_bytes - (needs.state_bytes - present) - needs.checkpoint_bytes
    return lambda microbatch: microbatch * needs.activation_bytes_per_image * _PLACEMENT_FACTOR <= left


def _averages(training: TrainingConfig) -> int:
    """Moving averages of the weights, of both kinds."""
    return len(training.ema_rates) + (len(training.ema_stds) if training.ema_snapshot_every else 0)
