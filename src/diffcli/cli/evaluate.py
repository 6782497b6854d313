"""`diffcli eval`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from diffcli.cli import evaluate_modes as modes
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

_IMAGES, _LIKELIHOOD, _SAMPLING = "Images beside a reference", "Likelihood", "Samples of a run"


def evaluate(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN|ARCHIVE|DIR",
            help="A run by id, name or its beginning, or latest; or images: an archive (.npz), a prepared "
            "dataset, a folder.",
        ),
    ],
    axes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="AXIS=VALUES", help="Further axes of --sweep.", show_default=False, hidden=True
        ),
    ] = None,
    num: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of images; by default 10,000 samples of a run, or all that are there."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE|DIR",
            help="What to compare with; by default the data that the run was trained on.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    reference_num: Annotated[
        int | None,
        typer.Option(
            min=2, help="Images of the reference, spread over it; by default all.", rich_help_panel=_IMAGES
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Such as fid,sfid,is,precision,recall,kid; also density, coverage, fid_infinity, nearest.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            metavar="inception|pixels|RUN",
            help="What to compare images by: Inception, means of pixels, or a classifier trained here.",
            rich_help_panel=_IMAGES,
        ),
    ] = "inception",
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights of Inception; else those of DIFFCLI_INCEPTION, in the cache, or fetched.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    half_distances: Annotated[
        bool,
        typer.Option(
            "--half-distances",
            help="Precision and recall from float16 distances, as OpenAI's evaluator takes them.",
            rich_help_panel=_IMAGES,
        ),
    ] = False,
    feature_batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images per forward pass of the features' network.", rich_help_panel=_IMAGES
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the record here instead.", rich_help_panel=_IMAGES),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS=VALUES ...",
            help="Evaluate a run at every point: --sweep steps=10,25,50 solver=ancestral,ddim; axes are "
            "steps, solver, eta, seed, ema, cfg, guidance.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    nll: Annotated[
        bool,
        typer.Option(
            "--nll",
            help="The variational bound on the likelihood of images, in bits/dim.",
            rich_help_panel=_LIKELIHOOD,
        ),
    ] = False,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split of the run's dataset; by default test.",
            show_default=False,
            rich_help_panel=_LIKELIHOOD,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Other images: a prepared dataset or a plain folder.",
            rich_help_panel=_LIKELIHOOD,
        ),
    ] = None,
    timesteps: Annotated[
        str,
        typer.Option(
            metavar="K|full",
            help="Draw K timesteps of the chain for each image, for an unbiased estimate, or take all.",
            rich_help_panel=_LIKELIHOOD,
        ),
    ] = "full",
    chain: Annotated[
        str,
        typer.Option(
            metavar="K|full",
            help="A chain of K timesteps, which has another bound, or full.",
            rich_help_panel=_LIKELIHOOD,
        ),
    ] = "full",
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
    low_res: LowRes = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Seed of samples, of noise, and of random subsets.")
    ] = 0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per forward pass; changes numbers by rounding only.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the record under the run.")] = None,
    device: Device = "auto",
    precision: NetworkPrecision = "fp32",
    threads: Threads = None,
    force: Force = False,
    as_json: AsJson = False,
    runs: RunsHome = RUNS_DEFAULT,
    data_home: DataHome = DATA_DEFAULT,
) -> None:
    """Measure how good a run or its images are, and record the numbers under it."""
    modes.check_options(context, nll=nll, axes=axes)
    if nll:
        from diffcli.commands.evaluation_images import ImageChoice
        from diffcli.commands.likelihood_request import LikelihoodRequest

        modes.likelihood(
            LikelihoodRequest(
                run=target,
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
            ),
            as_json=as_json,
        )
        return
    from diffcli.commands.evaluation_reference import ReferenceChoice
    from diffcli.commands.extractors import ExtractorChoice
    from diffcli.commands.guidance import GuidanceRequest
    from diffcli.commands.image_evaluation_request import ImageEvaluationRequest
    from diffcli.commands.image_metric_names import parse_metrics
    from diffcli.commands.sampling_request import SampleRequest

    sampling = SampleRequest(
        run=target,
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
        noise=None,
        low_res=low_res,
        name=None,
        out=None,
        device=device,
        precision=precision,
        threads=threads,
        force=False,
        runs_home=runs,
        command_line=tuple(sys.argv),
        guidance=GuidanceRequest(classifier=classifier, scale=guidance, cfg=cfg),
    )
    request = ImageEvaluationRequest(
        target=target,
        sampling=sampling,
        reference=ReferenceChoice(text=reference, data_home=data_home),
        metrics=parse_metrics(metrics, features),
        extractor=ExtractorChoice(features=features, weights=weights, runs_home=runs),
        distances="float16" if half_distances else "float32",
        reference_num=reference_num,
        batch_size=feature_batch,
        name=name,
        out=out,
        force=force,
    )
    if sweep:
        modes.sweep(context, (*sweep, *(axes or ())), request, as_json=as_json)
        return
    modes.images(request, as_json=as_json)
