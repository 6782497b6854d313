"""`diffcli eval`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from diffcli.cli.options import (
    DATA_DEFAULT,
    RUNS_DEFAULT,
    AsJson,
    DataHome,
    Device,
    Force,
    Overrides,
    RunsHome,
    Threads,
)
from diffcli.config.sections import Precision
from diffcli.errors import UsageError


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id, name or its beginning, or latest.")],
    nll: Annotated[
        bool, typer.Option("--nll", help="Likelihood: the variational bound on images, in bits/dim.")
    ] = False,
    split: Annotated[
        str | None, typer.Option(help="Split of the run's dataset; by default test.", show_default=False)
    ] = None,
    num: Annotated[
        int | None, typer.Option(min=1, help="Number of images, from the first on; by default all.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Other images: a prepared dataset or a plain folder.")
    ] = None,
    timesteps: Annotated[
        str,
        typer.Option(
            metavar="K|full",
            help="Draw K timesteps of the chain for each image, for an unbiased estimate, or take all.",
        ),
    ] = "full",
    chain: Annotated[
        str,
        typer.Option(metavar="K|full", help="A chain of K timesteps, which has another bound, or full."),
    ] = "full",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the noise on the images.")] = 0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per forward pass; changes numbers by rounding only.")
    ] = None,
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
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option(help="Name of the record under the run.")] = None,
    device: Device = "auto",
    precision: Annotated[
        Precision, typer.Option(help="Number format of the network's forward pass.")
    ] = "fp32",
    threads: Threads = None,
    force: Force = False,
    as_json: AsJson = False,
    runs: RunsHome = RUNS_DEFAULT,
    data_home: DataHome = DATA_DEFAULT,
) -> None:
    """Measure how good a run is, and record the numbers under it."""
    if not nll:
        raise UsageError(
            "say what to measure",
            where="what eval can do now is --nll, the likelihood of images in bits/dim",
            remedy=f"diffcli eval {run} --nll",
        )
    from diffcli.commands.evaluation_images import ImageChoice
    from diffcli.commands.likelihood import measure_likelihood
    from diffcli.commands.likelihood_request import LikelihoodRequest
    from diffcli.console import evaluations
    from diffcli.console.progress import WorkProgress

    request = LikelihoodRequest(
        run=run,
        images=ImageChoice(split=split, directory=data, count=num, data_home=data_home),
        timesteps=timesteps,
        chain=chain,
        seed=seed,
        batch_size=batch_size,
        overrides=tuple(overrides or ()),
        ema=ema,
        ema_std=ema_std,
        checkpoint=checkpoint,
        name=name,
        device=device,
        precision=precision,
        threads=threads,
        force=force,
        runs_home=runs,
        command_line=tuple(sys.argv),
    )
    with WorkProgress("evaluating", "image steps") as progress:
        result = measure_likelihood(request, progress)
    evaluations.show_evaluation(result, as_json=as_json)
