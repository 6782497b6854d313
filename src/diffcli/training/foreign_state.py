"""A checkpoint made of what another program left of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcli.config.sections import RunConfig
from diffcli.diffusion.schedule_samplers import build_schedule_sampler
from diffcli.training.checkpoints import CheckpointContent
from diffcli.training.counters import Counters
from diffcli.training.ema import NamedTensors
from diffcli.training.interval import IntervalSums
from diffcli.training.state import average_file


@dataclass(frozen=True, kw_only=True, eq=False)
class ForeignMoments:
    """AdamW's moments of every parameter, by name, and how many updates they took in."""

    updates: int
    exp_avg: NamedTensors
    exp_avg_sq: NamedTensors


@dataclass(frozen=True, kw_only=True, eq=False)
class ForeignState:
    """Tensors under our names, float32, of a training after `step` steps; None or empty for those lacking."""

    step: int
    weights: NamedTensors | None
    averages: Mapping[float, NamedTensors]
    moments: ForeignMoments | None


def checkpoint_of(state: ForeignState, config: RunConfig) -> CheckpointContent:
    """What a checkpoint of ours keeps of it.

    What other programs do not keep begins anew: the sums of a log interval, the loss scale, and what a
    schedule sampler has learned. The images seen are those of all steps at the configured batch size.
    """
    tensors: dict[str, Mapping[str, Tensor]] = {
        average_file(rate): weights for rate, weights in state.averages.items()
    }
    if state.weights is not None:
        tensors["model"] = state.weights
    if state.moments is not None:
        tensors["optimizer"] = {
            **{f"exp_avg.{name}": tensor for name, tensor in state.moments.exp_avg.items()},
            **{f"exp_avg_sq.{name}": tensor for name, tensor in state.moments.exp_avg_sq.items()},
        }
    sampler = build_schedule_sampler(config.training.schedule_sampler, config.diffusion.steps)
    if sampler.state_tensors():
        tensors["schedule_sampler"] = sampler.state_tensors()
    counters = Counters(
        images_seen=state.step * config.training.batch_size,
        optimizer_updates=state.moments.updates if state.moments else 0,
        loss_scale=None,
        overflows_in_a_row=0,
        interval_sums=torch.stack([IntervalSums(torch.device("cpu")).tensor()]),
    )
    return CheckpointContent(tensors=tensors, counters=counters.to_json())
