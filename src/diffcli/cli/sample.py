"""`diffcli sample`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from diffcli.cli.options import (
    RUNS_DEFAULT,
    AsJson,
    Device,
    Force,
    Overrides,
    RunsHome,
    Threads,
)
from diffcli.config.sections import Precision


def sample(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id, name or its beginning, or latest.")],
    num: Annotated[int, typer.Option(min=1, help="Number of images.")] = 64,
    steps: Annotated[
        str | None,
        typer.Option(help="Timesteps of ancestral sampling: a number, or counts such as 10,15,20."),
    ] = None,
    ddim: Annotated[int | None, typer.Option(min=1, help="DDIM with this many timesteps.")] = None,
    eta: Annotated[float | None, typer.Option(help="Noise of DDIM, 0 to 1.")] = None,
    overrides: Overrides = None,
    ema: Annotated[
        str | None, typer.Option(help="EMA rate of the weights, or none for the raw ones.")
    ] = None,
    ema_std: Annotated[
        float | None,
        typer.Option(help="Any EMA width, relative to the steps so far, such as 0.08; from EMA snapshots."),
    ] = None,
    checkpoint: Annotated[
        int | None, typer.Option(help="Step of the checkpoint; by default the newest.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option("--class", help="Classes by name or number, such as cat,dog: image i gets i mod n."),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Classifier, as RUN or RUN@STEP, that leads images to their classes."
        ),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Scale of the classifier's gradient; 1 if left out.")
    ] = None,
    cfg: Annotated[
        float | None,
        typer.Option(help="Guidance by the network alone: 0 without classes, 1 plain, above 1 beyond."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Image i of a seed is always the same image.")
    ] = 0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per forward pass; changes images by rounding only.")
    ] = None,
    noise: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="x_T as float32 [N, C, H, W], in place of drawn noise."),
    ] = None,
    low_res: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Small images (arr_0, arr_1) for super-resolution."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the archive under the run.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="Directory to write to instead.")] = None,
    device: Device = "auto",
    precision: Annotated[
        Precision, typer.Option(help="Number format of the network's forward pass.")
    ] = "fp32",
    threads: Threads = None,
    force: Force = False,
    as_json: AsJson = False,
    runs: RunsHome = RUNS_DEFAULT,
) -> None:
    """Draw images from a run into an archive, with a grid and a record of how they were made."""
    from diffcli.commands import sample as command
    from diffcli.commands.guidance import GuidanceRequest
    from diffcli.commands.sampling_request import SampleRequest
    from diffcli.console import samples
    from diffcli.console.progress import WorkProgress

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
    with WorkProgress("sampling", "images") as progress:
        result = command.sample(request, progress)
    samples.show_samples(result, as_json=as_json)
