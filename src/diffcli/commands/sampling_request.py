"""What `diffcli sample` was asked for, and the configuration that this makes of a run's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.guidance import (
    NO_GUIDANCE,
    Guidance,
    GuidanceRequest,
    check_classes_asked,
    find_guidance,
)
from diffcli.commands.run_config import current_config, require_diffusion_model
from diffcli.config.resolve import FlagSetting, revise
from diffcli.config.sections import Precision, RunConfig
from diffcli.diffusion.respacing import kept_timesteps, parse_section_counts
from diffcli.errors import UsageError
from diffcli.registry.create import Run, open_run
from diffcli.registry.run_record import known_dataset
from diffcli.training.power_function_ema import WIDEST_STD
from diffcli.workers import DeviceChoice


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """What `diffcli sample` was asked for; None leaves a choice to the run's configuration.

    count: None for as many as there are given images or noise, or else a number of `conditions`.
    """

    run: str
    count: int | None
    steps: str | None
    ddim: int | None
    eta: float | None
    overrides: tuple[str, ...]
    ema: str | None
    ema_std: float | None = None
    checkpoint: int | None
    classes: str | None
    seed: int
    batch_size: int | None
    noise: Path | None
    low_res: Path | None
    name: str | None
    out: Path | None
    device: DeviceChoice
    precision: Precision
    threads: int | None
    force: bool
    runs_home: Path
    command_line: tuple[str, ...]
    guidance: GuidanceRequest = NO_GUIDANCE


@dataclass(frozen=True, kw_only=True)
class SamplingOrder:
    """A request with its run, that run's configuration as the request revises it, and what guides it."""

    request: SampleRequest
    run: Run
    config: RunConfig
    guidance: Guidance

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes in the run's data, as far as they are known."""
        return known_dataset(self.run.paths, self.run.record).class_names


def find_order(request: SampleRequest) -> SamplingOrder:
    """Open the runs and revise the configuration; MissingError for no such run, and a UsageError."""
    run = open_run(request.runs_home, request.run)
    config = sampling_config(request, run)
    guidance = find_guidance(request.guidance, run, config, request.runs_home)
    check_classes_asked(guidance, request.classes)
    return SamplingOrder(request=request, run=run, config=config, guidance=guidance)


def find_deterministic_order(request: SampleRequest, option: str) -> SamplingOrder:
    """The same for what only DDIM without noise can do, which the option asks for; it need not say so."""
    order = find_order(request)
    if order.config.sampling.solver != "ddim":
        order = find_order(dataclasses.replace(request, ddim=kept_steps(order.config)))
    sampling = order.config.sampling
    if sampling.solver != "ddim":
        raise UsageError(
            f"{option} goes through DDIM, and sampling.solver is {sampling.solver}",
            where=option,
            remedy="leave sampling.solver as it is",
        )
    if sampling.eta:
        raise UsageError(
            f"{option} needs DDIM without noise, and sampling.eta is {sampling.eta}",
            where=option,
            remedy="add --eta 0",
        )
    return order


def kept_steps(config: RunConfig) -> int:
    """The timesteps that a run samples with by itself."""
    kept = kept_timesteps(config.diffusion.steps, config.sampling)
    return config.diffusion.steps if kept is None else len(kept)


def sampling_config(request: SampleRequest, run: Run) -> RunConfig:
    """The run's configuration with what the request asks of its sampling section, or a UsageError."""
    require_diffusion_model(run)
    _check_name(request.name)
    check_ema_std(request.ema_std, ema=request.ema, overrides=request.overrides)
    if request.steps is not None and request.ddim is not None:
        raise UsageError("--steps and --ddim exclude each other", remedy="--steps is for ancestral sampling")
    flags: list[FlagSetting] = []
    if request.steps is not None:
        counts = parse_section_counts(request.steps)
        if not any(counts):
            raise UsageError("--steps 0 keeps no timestep", remedy="leave --steps out for the run's own")
        flags.append(
            FlagSetting(flag="--steps", path="sampling.steps", value=counts if len(counts) > 1 else counts[0])
        )
        flags.append(FlagSetting(flag="--steps", path="sampling.solver", value="ancestral"))
    if request.ddim is not None:
        flags.append(FlagSetting(flag="--ddim", path="sampling.steps", value=request.ddim))
        flags.append(FlagSetting(flag="--ddim", path="sampling.solver", value="ddim"))
    if request.eta is not None:
        flags.append(FlagSetting(flag="--eta", path="sampling.eta", value=request.eta))
    if request.ema is not None:
        flags.append(FlagSetting(flag="--ema", path="sampling.ema", value=ema_choice(request.ema)))
    config = revise(
        current_config(run), run=run.id, changeable=("sampling",), overrides=request.overrides, flags=flags
    ).config
    if request.eta is not None and config.sampling.solver != "ddim":
        raise UsageError("--eta is for DDIM", remedy="add --ddim STEPS")
    return config


def _check_name(name: str | None) -> None:
    if name is not None and (not name or "/" in name or name.startswith(".")):
        raise UsageError(
            f"an archive cannot be named {name!r}",
            where="--name",
            remedy="a name without slashes that does not start with a dot; --out PATH writes elsewhere",
        )


def ema_choice(text: str) -> float | str:
    """What `--ema` says, as sampling.ema takes it."""
    try:
        return float(text)
    except ValueError:
        return text


def check_ema_std(std: float | None, *, ema: str | None, overrides: Sequence[str]) -> None:
    """Raise a UsageError if `--ema-std` asks for what no average is, or stands beside another choice."""
    if std is None:
        return
    if ema is not None or any(override.partition("=")[0].strip() == "sampling.ema" for override in overrides):
        raise UsageError(
            "--ema-std and an EMA rate exclude each other",
            remedy="--ema and sampling.ema choose an average of training.ema_rates",
        )
    if not 0 < std <= WIDEST_STD:
        raise UsageError(
            f"no average has the relative width {std}",
            where="--ema-std",
            remedy=f"more than 0, at most {math.floor(WIDEST_STD * 1e4) / 1e4} (the mean of all steps); "
            "often 0.05 to 0.15",
        )
