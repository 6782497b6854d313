"""Options of drawing samples, which `sample` and `eval` share; imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffcli.config.sections import Precision

Steps = Annotated[
    str | None,
    typer.Option("--steps", help="Timesteps of ancestral sampling: a number, or counts such as 10,15,20."),
]
Ddim = Annotated[int | None, typer.Option("--ddim", min=1, help="DDIM with this many timesteps.")]
Eta = Annotated[float | None, typer.Option("--eta", help="Noise of DDIM, 0 to 1.")]
Ema = Annotated[str | None, typer.Option("--ema", help="EMA rate of the weights, or none for the raw ones.")]
EmaStd = Annotated[
    float | None,
    typer.Option(
        "--ema-std", help="Any EMA width, relative to the steps so far, such as 0.08; from EMA snapshots."
    ),
]
CheckpointStep = Annotated[
    int | None, typer.Option("--checkpoint", help="Step of the checkpoint; by default the newest.")
]
Classes = Annotated[
    str | None,
    typer.Option("--class", help="Classes by name or number, such as cat,dog: image i gets i mod n."),
]
ClassifierRun = Annotated[
    str | None,
    typer.Option(
        "--classifier",
        metavar="RUN",
        help="Classifier, as RUN or RUN@STEP, that leads images to their classes.",
    ),
]
GuidanceScale = Annotated[
    float | None, typer.Option("--guidance", help="Scale of the classifier's gradient; 1 if left out.")
]
Cfg = Annotated[
    float | None,
    typer.Option("--cfg", help="Guidance by the network alone: 0 without classes, 1 plain, above 1 beyond."),
]
LowRes = Annotated[
    Path | None,
    typer.Option(
        "--low-res",
        metavar="PATH",
        help="Small images for super-resolution: an archive, a dataset, a folder, or one image.",
    ),
]
NetworkPrecision = Annotated[
    Precision, typer.Option("--precision", help="Number format of the network's forward pass.")
]
