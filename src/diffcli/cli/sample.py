"""`diffcli sample`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from diffcli.cli import sample_modes as modes
from diffcli.cli.options import (
    RUNS_DEFAULT,
    AsJson,
    Device,
    Overrides,
    RunsHome,
    Threads,
)
from diffcli.cli.sampling_options import (
    Cfg,
    CheckpointStep,
    Classes,
    ClassifierRun,
    Ddim,
    Ema,
    EmaStd,
    Eta,
    GuidanceScale,
    LowRes,
    NetworkPrecision,
    Steps,
)

_CASCADE, _LATENTS = "Cascade", "Latent space"


def sample(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id, name or its beginning, or latest.")],
    num: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of images; by default 64, or as many as are given. Known ones are not drawn again.",
        ),
    ] = None,
    steps: Steps = None,
    ddim: Ddim = None,
    eta: Eta = None,
    overrides: Overrides = None,
    ema: Ema = None,
    ema_std: EmaStd = None,
    checkpoint: CheckpointStep = None,
    classes: Classes = None,
    classifier: ClassifierRun = None,
    guidance: GuidanceScale = None,
    cfg: Cfg = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Image i of a seed is always the same image.")
    ] = 0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per forward pass; changes images by rounding only.")
    ] = None,
    noise: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="x_T in place of drawn noise: a .npy file, float32 [N, C, H, W], or what --encode wrote.",
        ),
    ] = None,
    low_res: LowRes = None,
    then: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN[@STEP]",
            help="Enlarge the images by this super-resolution run; may be given again, for the next size.",
            rich_help_panel=_CASCADE,
        ),
    ] = None,
    then_steps: Annotated[
        str | None,
        typer.Option(
            help="--steps of the runs that enlarge; by default their own.", rich_help_panel=_CASCADE
        ),
    ] = None,
    then_ddim: Annotated[
        int | None, typer.Option(min=1, help="--ddim of the runs that enlarge.", rich_help_panel=_CASCADE)
    ] = None,
    then_batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="--batch-size of the runs that enlarge.", rich_help_panel=_CASCADE),
    ] = None,
    encode: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Find x_T of images by DDIM: an archive, a dataset, a folder, or one image.",
            rich_help_panel=_LATENTS,
        ),
    ] = None,
    interpolate: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Draw the way from A to B by DDIM, each a seed such as seed:3 or an image file.",
            rich_help_panel=_LATENTS,
        ),
    ] = None,
    frames: Annotated[
        int, typer.Option(min=2, help="Images of --interpolate, A and B included.", rich_help_panel=_LATENTS)
    ] = 11,
    name: Annotated[str | None, typer.Option(help="Name of the archive under the run.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="Directory to write to instead.")] = None,
    device: Device = "auto",
    precision: NetworkPrecision = "fp32",
    threads: Threads = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace what is already there, and take no image from other archives."),
    ] = False,
    as_json: AsJson = False,
    runs: RunsHome = RUNS_DEFAULT,
) -> None:
    """Draw images from a run into an archive, with a grid and a record of how they were made."""
    modes.check_options(context)
    from diffcli.commands.guidance import GuidanceRequest
    from diffcli.commands.sampling_request import SampleRequest

    request = SampleRequest(
        run=run,
        count=num,
        steps=steps,
        ddim=ddim,
        eta=eta,
        overrides=tuple(overrides or ()),
        ema=ema,
        ema_std=ema_std,
        checkpoint=checkpoint,
        classes=classes,
        seed=seed,
        batch_size=batch_size,
        noise=noise,
        low_res=low_res,
        name=name,
        out=out,
        device=device,
        precision=precision,
        threads=threads,
        force=force,
        runs_home=runs,
        command_line=tuple(sys.argv),
        guidance=GuidanceRequest(classifier=classifier, scale=guidance, cfg=cfg),
    )
    if interpolate is not None:
        first, last = interpolate
        modes.interpolate(request, first, last, frames=frames, as_json=as_json)
    elif encode is not None:
        modes.encode(request, encode, as_json=as_json)
    elif then:
        wishes = modes.Enlarging(
            runs=tuple(then), steps=then_steps, ddim=then_ddim, batch_size=then_batch_size
        )
        modes.cascade(request, wishes, as_json=as_json)
    else:
        modes.draw(request, as_json=as_json)
