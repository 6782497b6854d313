"""Everything that a training step changes, and its way into a checkpoint and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import AdamW

from diffcli.diffusion.schedule_samplers import ScheduleSampler
from diffcli.errors import CorruptError
from diffcli.training import checkpoints
from diffcli.training.checkpoints import CheckpointContent
from diffcli.training.counters import Counters, counters_from_json
from diffcli.training.ema import MovingAverage
from diffcli.training.health import Health
from diffcli.training.interval import IntervalSums
from diffcli.training.optimizer import load_moments, moments, updates_taken
from diffcli.training.power_function_ema import PowerFunctionAverage

# the name of the weights' file, without its suffix
RAW_WEIGHTS = "model"
_OPTIMIZER = "optimizer"
_AVERAGE_PREFIX = "ema-"
_PROFILE_PREFIX = "std-"


@dataclass(kw_only=True)
class TrainingState:
    """The tensors and counters of a run in training; `step` is the number of optimizer steps done.

    profiles: the power-function averages of which snapshots are kept; none unless they were asked for.
    """

    model: nn.Module
    optimizer: AdamW
    averages: tuple[MovingAverage, ...]
    sampler: ScheduleSampler
    profiles: tuple[PowerFunctionAverage, ...]
    scaler: GradScaler
    sums: IntervalSums
    health: Health
    step: int = 0
    images_seen: int = 0
    overflows_in_a_row: int = 0


def average_file(rate: float) -> str:
    """The name of a moving average's file, without its suffix."""
    return f"{_AVERAGE_PREFIX}{rate}"


def average_rates(directory: Path) -> tuple[float, ...]:
    """The rates of the moving averages in a checkpoint, smallest first."""
    files = directory.glob(f"{_AVERAGE_PREFIX}*.safetensors")
    return tuple(sorted(float(file.stem.removeprefix(_AVERAGE_PREFIX)) for file in files))


def profile_file(std: float) -> str:
    """The name of a power-function average's file, without its suffix, in checkpoints and snapshots."""
    return f"{_PROFILE_PREFIX}{std}"


def content_of(state: TrainingState, interval_sums: list[Tensor]) -> CheckpointContent:
    """What a checkpoint keeps of the state, and of the unfinished interval of every process."""
    tensors: dict[str, Mapping[str, Tensor]] = {
        RAW_WEIGHTS: state.model.state_dict(),
        _OPTIMIZER: moments(state.optimizer, state.model),
    }
    for average in state.averages:
        tensors[average_file(average.rate)] = average.weights
    tensors |= profile_tensors(state)
    sampler_tensors = state.sampler.state_tensors()
    if sampler_tensors:
        tensors["schedule_sampler"] = sampler_tensors
    counters = Counters(
        images_seen=state.images_seen,
        optimizer_updates=updates_taken(state.optimizer),
        loss_scale=state.scaler.get_scale() if state.scaler.is_enabled() else None,
        overflows_in_a_row=state.overflows_in_a_row,
        interval_sums=torch.stack(interval_sums),
    )
    return CheckpointContent(tensors=tensors, counters=counters.to_json())


def profile_tensors(state: TrainingState) -> dict[str, Mapping[str, Tensor]]:
    """The power-function averages, by the names of their files."""
    return {profile_file(profile.std): profile.weights for profile in state.profiles}


def restore(state: TrainingState, directory: Path, step: int, *, rank: int, world_size: int) -> None:
    """Fill the state from a checkpoint; CorruptError names the first tensors or counters that do not fit."""
    counters = _read_counters(directory, state.sums)
    state.model.load_state_dict(checkpoints.read_fitting(directory, RAW_WEIGHTS, state.model.state_dict()))
    for average in state.averages:
        average.load(checkpoints.read_fitting(directory, average_file(average.rate), average.weights))
    for profile in state.profiles:
        profile.load(checkpoints.read_fitting(directory, profile_file(profile.std), profile.weights))
    # without an update there is nothing in them; of an imported run the file may be lacking
    if counters.optimizer_updates:
        named_moments = checkpoints.read_fitting(directory, _OPTIMIZER, moments(state.optimizer, state.model))
        load_moments(state.optimizer, state.model, named_moments, updates=counters.optimizer_updates)
    sampler_tensors = state.sampler.state_tensors()
    if sampler_tensors:
        state.sampler.load_state_tensors(
            checkpoints.read_fitting(directory, "schedule_sampler", sampler_tensors)
        )
    if state.scaler.is_enabled() and counters.loss_scale is not None:
        set_loss_scale(state.scaler, counters.loss_scale)
    _restore_interval(state.sums, counters.interval_sums, rank=rank, world_size=world_size)
    state.step = step
    state.images_seen = counters.images_seen
    state.overflows_in_a_row = counters.overflows_in_a_row


def starting_weights(directory: Path) -> str:
    """The name of the weights that a new training starts from: the raw ones of a checkpoint that has them.

    Of an imported run there may be averages only; then it is the shortest, which is nearest to the raw ones.
    """
    rates = average_rates(directory)
    return average_file(rates[0]) if rates and not has_raw_weights(directory) else RAW_WEIGHTS


def has_raw_weights(directory: Path) -> bool:
    """Whether a checkpoint holds the weights themselves, without which no training goes on."""
    return (directory / f"{RAW_WEIGHTS}.safetensors").is_file()


def has_moments(directory: Path) -> bool:
    """Whether a checkpoint holds the moments of its optimizer; of an imported run they may be lacking."""
    return (directory / f"{_OPTIMIZER}.safetensors").is_file()


def start_from(state: TrainingState, directory: Path) -> None:
    """Begin at step 0 with the weights of another run's checkpoint; CorruptError names what does not fit.

    A moving average starts as the checkpoint's of the same rate, or as the weights if it has none. Moments,
    counters and what a schedule sampler has learned begin anew.
    """
    weights = checkpoints.read_fitting(directory, starting_weights(directory), state.model.state_dict())
    state.model.load_state_dict(weights)
    known = average_rates(directory)
    for average in state.averages:
        same_rate = average.rate in known
        average.load(
            checkpoints.read_fitting(directory, average_file(average.rate), average.weights)
            if same_rate
            else weights
        )


def set_loss_scale(scaler: GradScaler, scale: float) -> None:
    """Let the next step use this loss scale, also if no step was taken yet."""
    # update() would refuse before the first step, when the scale is no tensor yet
    scaler.load_state_dict(scaler.state_dict() | {"scale": scale})


def _read_counters(directory: Path, sums: IntervalSums) -> Counters:
    found = checkpoints.read_counters(directory)
    try:
        return counters_from_json(found, sums=sums.tensor())
    except ValueError as error:
        raise CorruptError(
            f"{directory / checkpoints.STATE} does not hold the counters of this training", where=str(error)
        ) from error


def _restore_interval(sums: IntervalSums, saved: Tensor, *, rank: int, world_size: int) -> None:
    if saved.shape[0] == world_size:
        sums.load(saved[rank])
    elif rank == 0:
        # another world size: the means stay the same, their last bits need not
        sums.load_total(saved, world_size=world_size)
