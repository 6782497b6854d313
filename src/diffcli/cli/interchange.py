"""`diffcli runs import` and `diffcli runs export`: files of other programs, in and out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from diffcli.cli.options import RUNS_DEFAULT, AsJson, Force, Overrides, RunsHome, complete_preset
from diffcli.records.interchange import ExportFormat


def import_run(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|DIR",
            help="A .pt or .safetensors file with the published names, or an original training's directory.",
        ),
    ],
    preset: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete_preset,
            help="Name of the preset whose network it is, or a TOML file like one; unset: worked out.",
        ),
    ] = None,
    overrides: Overrides = None,
    step: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Which step, of a directory with several; or the step of a file whose name does not tell.",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="A name for the run.")] = "",
    as_json: AsJson = False,
    home: RunsHome = RUNS_DEFAULT,
) -> None:
    """Make a run of a published checkpoint, or of the files of an original training."""
    from diffcli.commands import run_import as commands
    from diffcli.console import interchange as console

    request = commands.ImportRequest(
        path=path,
        preset=preset,
        overrides=tuple(overrides or ()),
        step=step,
        name=name,
        runs_home=home,
        command_line=tuple(sys.argv),
    )
    console.show_imported(commands.import_run(request), as_json=as_json)


def export_run(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A run: its id, its name or the beginning of it, `latest`, or its directory."
        ),
    ],
    file_format: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="openai: original names in .pt files; safetensors: the same in .safetensors files; "
            "diffusers: a folder for UNet2DModel.",
        ),
    ],
    ema: Annotated[
        str | None,
        typer.Option(
            help="EMA rate, first, or none for the raw weights; unset: all, for diffusers as sampling.ema.",
        ),
    ] = None,
    checkpoint: Annotated[
        int | None,
        typer.Option(metavar="STEP", min=0, help="Step of the checkpoint; unset: the newest good."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory for the files; unset: one in the run's own.")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
    home: RunsHome = RUNS_DEFAULT,
) -> None:
    """Write a checkpoint under the original names, or as a folder for diffusers."""
    from diffcli.commands import run_export as commands
    from diffcli.console import interchange as console

    request = commands.ExportRequest(
        run=run, format=file_format, ema=ema, checkpoint=checkpoint, out=out, force=force, runs_home=home
    )
    console.show_exported(commands.export_run(request), as_json=as_json)
