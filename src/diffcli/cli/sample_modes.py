"""What `sample` does by its options: draw, draw and enlarge, encode, or interpolate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from diffcli.errors import UsageError

if TYPE_CHECKING:
    from diffcli.commands.sampling_request import SampleRequest

_UNIT = "images"

# DDIM is inverted without it
_GUIDANCE = ("classifier", "guidance", "cfg")
# of these options, the ones that mean nothing beside each
_EXCLUDED_BY = {
    "interpolate": ("encode", "then", "noise", "steps", "seed", "num", "low_res", *_GUIDANCE),
    "encode": ("then", "noise", "steps", "seed", *_GUIDANCE),
}
# what an option is about
_BELONGS_TO = {"frames": "interpolate", "then_steps": "then", "then_ddim": "then", "then_batch_size": "then"}
_SPELLED = {"classes": "class"}


@dataclass(frozen=True, kw_only=True)
class Enlarging:
    """What the options of a cascade say: the runs that enlarge, and how they do."""

    runs: tuple[str, ...]
    steps: str | None
    ddim: int | None
    batch_size: int | None


def check_options(context: typer.Context) -> None:
    """Raise UsageError for options on the command line that exclude each other, or lack another."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    for mode, excluded in _EXCLUDED_BY.items():
        for option in excluded:
            if {mode, option} <= given:
                raise UsageError(
                    f"{_flag(mode)} and {_flag(option)} exclude each other",
                    remedy=f"leave {_flag(option)} out",
                )
    for option, mode in _BELONGS_TO.items():
        if option in given and mode not in given:
            raise UsageError(
                f"{_flag(option)} is for {_flag(mode)}", remedy=f"leave it out, or add {_flag(mode)}"
            )
    if {"then_steps", "then_ddim"} <= given:
        raise UsageError(
            "--then-steps and --then-ddim exclude each other", remedy="--then-steps is for ancestral sampling"
        )


def draw(request: SampleRequest, *, as_json: bool) -> None:
    """`sample RUN`."""
    from diffcli.commands import sample as command
    from diffcli.console import samples
    from diffcli.console.progress import WorkProgress

    with WorkProgress("sampling", _UNIT) as progress:
        result = command.sample(request, progress)
    samples.show_samples(result, as_json=as_json)


def cascade(request: SampleRequest, enlarging: Enlarging, *, as_json: bool) -> None:
    """`sample RUN --then RUN`."""
    from diffcli.commands import cascade as command
    from diffcli.console import samples
    from diffcli.console.progress import WorkProgress

    asked = command.CascadeRequest(
        base=request,
        then=enlarging.runs,
        steps=enlarging.steps,
        ddim=enlarging.ddim,
        batch_size=enlarging.batch_size,
    )
    with WorkProgress("sampling", _UNIT) as progress:
        result = command.cascade(asked, progress)
    samples.show_cascade(result, as_json=as_json)


def encode(request: SampleRequest, images: Path, *, as_json: bool) -> None:
    """`sample RUN --encode IMAGES`."""
    from diffcli.commands import encode as command
    from diffcli.console import samples
    from diffcli.console.progress import WorkProgress

    with WorkProgress("encoding", _UNIT) as progress:
        result = command.encode(command.EncodeRequest(images=images, sampling=request), progress)
    samples.show_encoding(result, as_json=as_json)


def interpolate(request: SampleRequest, first: str, last: str, *, frames: int, as_json: bool) -> None:
    """`sample RUN --interpolate A B`."""
    from diffcli.commands import interpolate as command
    from diffcli.console import samples
    from diffcli.console.progress import WorkProgress

    asked = command.InterpolateRequest(first=first, last=last, frames=frames, sampling=request)
    with WorkProgress("sampling", _UNIT) as progress:
        result = command.interpolate(asked, progress)
    samples.show_interpolation(result, as_json=as_json)


def _flag(parameter: str) -> str:
    return "--" + _SPELLED.get(parameter, parameter).replace("_", "-")
