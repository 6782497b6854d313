"""`diffcli prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffcli.cli.options import DATA_DEFAULT, AsJson, DataHome, Force

app = typer.Typer(no_args_is_help=True, help="Turn a source of images into a prepared dataset.")


@app.command("digits")
def digits(data_home: DataHome = DATA_DEFAULT, force: Force = False, as_json: AsJson = False) -> None:
    """The 1,797 scanned 8x8 digits that come with diffcli; needs no network."""
    from diffcli.commands import prepare
    from diffcli.console import datasets

    results = prepare.prepare_digits(prepare.DigitsRequest(home=data_home, force=force))
    datasets.show_prepared(results, next_command="diffcli train --preset digits", as_json=as_json)


@app.command("folder")
def folder(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Images, in it and below it.")],
    size: Annotated[int, typer.Option(min=1, max=4096, help="Height and width to prepare, pixels.")],
    name: Annotated[str, typer.Option(help="Name of the dataset; by default the folder's.")] = "",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    recipe: Annotated[str, typer.Option(help="Resize recipe: guided or improved.")] = "guided",
    labels: Annotated[
        str, typer.Option(help="Where classes come from: filename (up to the first _) or directories.")
    ] = "filename",
    data_home: DataHome = DATA_DEFAULT,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Your own images: cropped to squares, resized, packed for fast reading."""
    from diffcli.commands import prepare
    from diffcli.console import datasets
    from diffcli.console.progress import WorkProgress

    request = prepare.FolderRequest(
        directory=directory,
        size=size,
        name=name,
        split=split,
        recipe=recipe,
        labels=labels,
        home=data_home,
        force=force,
    )
    with WorkProgress("preparing", "images") as progress:
        result = prepare.prepare_folder(request, progress)
    datasets.show_prepared(
        (result,),
        next_command=f"diffcli train --preset PRESET --data {result.directory}",
        as_json=as_json,
    )
