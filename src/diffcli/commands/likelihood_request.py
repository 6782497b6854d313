"""What `diffcli eval RUN --nll` was asked for, and the chain and timesteps that this means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.evaluation_images import ImageChoice
from diffcli.commands.run_config import current_config, require_diffusion_model
from diffcli.commands.sampling_request import check_ema_std, ema_choice
from diffcli.config.resolve import FlagSetting, revise
from diffcli.config.sections import Precision, RunConfig
from diffcli.diffusion.build import GaussianDiffusion, build_diffusion
from diffcli.diffusion.respacing import section_timesteps
from diffcli.errors import UsageError
from diffcli.evaluation.timestep_strata import TimestepStrata
from diffcli.registry.create import Run
from diffcli.workers import DeviceChoice

_FULL = "full"
# the settings of sampling that the bound depends on
_CHANGEABLE = ("sampling.clip", "sampling.ema")


@dataclass(frozen=True, kw_only=True)
class LikelihoodRequest:
    """What was asked for; timesteps, chain: a number, or full."""

    run: str
    images: ImageChoice
    timesteps: str
    chain: str
    seed: int
    batch_size: int | None
    overrides: tuple[str, ...]
    ema: str | None
    ema_std: float | None = None
    checkpoint: int | None
    name: str | None
    device: DeviceChoice
    precision: Precision
    threads: int | None
    force: bool
    runs_home: Path
    command_line: tuple[str, ...]


def evaluated_config(request: LikelihoodRequest, run: Run) -> RunConfig:
    """The run's configuration with what the request asks of its sampling section, or a UsageError."""
    require_diffusion_model(run)
    _check_name(request.name)
    check_ema_std(request.ema_std, ema=request.ema, overrides=request.overrides)
    flags = []
    if request.ema is not None:
        flags.append(FlagSetting(flag="--ema", path="sampling.ema", value=ema_choice(request.ema)))
    return revise(
        current_config(run), run=run.id, changeable=_CHANGEABLE, overrides=request.overrides, flags=flags
    ).config


def evaluated_chain(request: LikelihoodRequest, config: RunConfig) -> GaussianDiffusion:
    """The chain of training, or a respaced one, which has another bound; UsageError for no such length."""
    chain = config.diffusion.steps
    length = _count(request.chain, most=chain, option="--chain", what="a chain of {} timesteps cannot be had")
    if length == chain:
        return build_diffusion(config.diffusion)
    return build_diffusion(config.diffusion, section_timesteps(chain, (length,)))


def timestep_strata(request: LikelihoodRequest, diffusion: GaussianDiffusion) -> TimestepStrata:
    """How many timesteps of the chain each image is to see; UsageError for more than there are."""
    count = _count(
        request.timesteps,
        most=diffusion.steps,
        option="--timesteps",
        what="{} timesteps of each image cannot be drawn",
    )
    return TimestepStrata(chain_steps=diffusion.steps, count=count)


def _count(text: str, *, most: int, option: str, what: str) -> int:
    if text == _FULL:
        return most
    if text.isdecimal() and 1 <= int(text) <= most:
        return int(text)
    raise UsageError(what.format(repr(text)), where=option, remedy=f"a number from 1 to {most}, or {_FULL}")


def _check_name(name: str | None) -> None:
    if name is not None and (not name.isprintable() or "/" in name or name.startswith(".") or not name):
        raise UsageError(
            f"{name!r} cannot name an evaluation",
            where="--name",
            remedy="use printable characters without slashes, the first one not a dot",
        )
