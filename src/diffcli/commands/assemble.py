"""From a configuration to the parts of a training: network, optimizer, averages, diffusion, inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from diffcli.commands.available_memory import available_memory_bytes
from diffcli.commands.memory import estimated_to_fit
from diffcli.config.sections import RunConfig
from diffcli.data.batches import Batch, Prefetcher, network_images
from diffcli.data.validation import HeldOutImages
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.schedule_samplers import build_schedule_sampler
from diffcli.errors import UsageError
from diffcli.images.resize import area_downsampled
from diffcli.models.build import build_network
from diffcli.models.classifier import Classifier
from diffcli.models.conditioning import Conditioning
from diffcli.models.unet import UNet
from diffcli.randomness.streams import Stream, derived_seed
from diffcli.training.ema import MovingAverage
from diffcli.training.health import Health
from diffcli.training.interval import IntervalSums
from diffcli.training.label_drop import with_dropped_labels
from diffcli.training.loop import StepInput
from diffcli.training.microbatch import StepProbe, agreed_microbatch
from diffcli.training.objective import Examples, Objective, build_objective
from diffcli.training.optimizer import build_optimizer
from diffcli.training.power_function_ema import PowerFunctionAverage
from diffcli.training.state import TrainingState
from diffcli.training.step import TrainingStep, draw
from diffcli.training.validation import HeldOut, Validation
from diffcli.workers import Workers, sent


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """A training that is ready for its first step; microbatch: images per forward pass."""

    network: UNet | Classifier
    objective: Objective
    state: TrainingState
    step: TrainingStep
    microbatch: int


def require_work_for_all(config: RunConfig, validation: HeldOutImages | None, workers: Workers) -> None:
    """UsageError when there are fewer images, of a batch or to validate on, than processes."""
    batch_size, processes = config.training.batch_size, workers.world_size
    if batch_size < processes:
        raise UsageError(
            f"training.batch_size is {batch_size}, fewer than the {processes} processes",
            remedy="the batch is global: start fewer processes or set a larger one",
        )
    if validation is not None and validation.count < processes:
        raise UsageError(
            f"there are fewer images to validate on, {validation.count}, than processes, {processes}",
            where="training.eval_images, of data.validation_split",
            remedy="take more of them, or start fewer processes",
        )


def initial_network(config: RunConfig) -> UNet | Classifier:
    """The network with its initial weights, a function of training.seed, on the CPU."""
    torch.manual_seed(derived_seed(config.training.seed, Stream.MODEL_INIT, step=0, item=0))
    return build_network(config)


def assemble(config: RunConfig, workers: Workers, *, microbatch: int | None) -> Assembly:
    """Build everything that trains, on this process's device, before any step.

    microbatch: images per forward pass; None: as many as fit, of which DiffcliError tells if it is none.
    """
    # moved before optimizer and averages take hold of its parameters
    network = initial_network(config).to(workers.device)
    diffusion = build_diffusion(config.diffusion)
    objective = build_objective(config.model.kind, diffusion)
    training = config.training
    state = TrainingState(
        model=network,
        optimizer=build_optimizer(network, training, workers.device),
        averages=tuple(
            MovingAverage(network, rate=rate, warmup_steps=training.ema_warmup_steps)
            for rate in training.ema_rates
        ),
        profiles=tuple(
            PowerFunctionAverage(network, std=std) for std in training.ema_stds if training.ema_snapshot_every
        ),
        sampler=build_schedule_sampler(training.schedule_sampler, diffusion.steps),
        scaler=workers.loss_scaler(),
        sums=IntervalSums(workers.device),
        health=Health(workers.device),
    )
    if microbatch is None:
        # on the network as it is before it is wrapped for several processes
        microbatch = _fitting_microbatch(config, workers, state, objective)
    step = TrainingStep(config, workers, state, objective, microbatch=microbatch)
    return Assembly(network=network, objective=objective, state=state, step=step, microbatch=microbatch)


def _fitting_microbatch(
    config: RunConfig, workers: Workers, state: TrainingState, objective: Objective
) -> int:
    probe = StepProbe(
        config=config,
        network=state.model,
        optimizer=state.optimizer,
        objective=objective,
        share=len(workers.share(config.training.batch_size)),
    )
    # the processes of this machine take from the same memory
    available = available_memory_bytes() // workers.on_this_machine
    may_fit = estimated_to_fit(config, workers.device, available)
    return agreed_microbatch(config, workers, lambda images: may_fit(images) and probe.fits(images))


def step_inputs(
    batches: Prefetcher, config: RunConfig, workers: Workers, state: TrainingState
) -> Iterator[StepInput]:
    """The inputs of the steps from the state's on; each is made when the loop asks for it."""
    positions = workers.share(config.training.batch_size)
    waited_seconds = 0.0
    for batch in batches:
        told = with_dropped_labels(batch, config, positions, step=state.step)
        examples = _examples(told, config, workers.device)
        yield StepInput(
            examples=examples,
            draws=draw(state, config.training, positions, examples.x_start.shape[1:]),
            waited_seconds=batches.waited_seconds - waited_seconds,
        )
        waited_seconds = batches.waited_seconds


def validation_of(
    images: HeldOutImages, config: RunConfig, workers: Workers, assembly: Assembly
) -> Validation:
    """What measures the training on those images, of which each process needs one."""

    def read(places: range) -> HeldOut:
        examples = _examples(images.batch(places), config, workers.device)
        return HeldOut(examples=examples, indices=images.indices[places.start : places.stop])

    return Validation(
        network=assembly.network,
        objective=assembly.objective,
        workers=workers,
        read=read,
        count=images.count,
        microbatch=assembly.microbatch,
        noisy=config.training.noisy,
    )


def _examples(batch: Batch, config: RunConfig, device: torch.device) -> Examples:
    x_start = network_images(sent(batch.images, device), sent(batch.flips, device))
    low_resolution = config.data.low_resolution
    classes = sent(batch.labels, device) if config.model.classes and batch.labels is not None else None
    # a classifier is not told them, but asked for them
    asked = config.model.kind == "classifier"
    return Examples(
        x_start=x_start,
        conditioning=Conditioning(
            y=None if asked else classes,
            low_res=area_downsampled(x_start, low_resolution) if low_resolution else None,
        ),
        labels=classes if asked else None,
    )
