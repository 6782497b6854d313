"""`diffcli prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffcli.cli import prepare_papers
from diffcli.cli.next_commands import after_preparing
from diffcli.cli.options import (
    DATA_DEFAULT,
    AsJson,
    DataHome,
    Encoding,
    Force,
    OutputFormat,
    OutputLayout,
    Quality,
    Recipe,
    Size,
)
from diffcli.config.sections import LabelSource
from diffcli.errors import UsageError

_NAMING = "A prepared dataset: its directory, that of its splits, or its name in the data home."

app = typer.Typer(
    help="Turn a source of images into a prepared dataset; list, verify and show prepared ones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("cifar10")(prepare_papers.cifar10)
app.command("imagenet64")(prepare_papers.imagenet64)
app.command("imagenet")(prepare_papers.imagenet)
app.command("lsun")(prepare_papers.lsun)


@app.command("digits")
def prepare_digits(data_home: DataHome = DATA_DEFAULT, force: Force = False, as_json: AsJson = False) -> None:
    """The 1,797 scanned 8x8 digits that come with diffcli; needs no network."""
    from diffcli.commands import prepare
    from diffcli.console import datasets

    with datasets.preparing() as listener:
        result = prepare.prepare_digits(prepare.DigitsRequest(home=data_home, force=force), listener)
    datasets.show_prepared(result, next_command=after_preparing(result, data_home), as_json=as_json)


@app.command("folder")
def prepare_folder(
    size: Size,
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Images, in it and below it.", show_default=False)
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="In place of DIR: a tar, tar.gz or zip file of such a folder, or an npz with arr_0.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(help="Name of the dataset; by default the folder's, and the size.")
    ] = "",
    recipe: Recipe = "guided",
    labels: Annotated[
        LabelSource,
        typer.Option(help="Classes: file names up to the first underscore, or directories."),
    ] = "filename",
    labels_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Classes: a csv of path,class, or a JSON file; a dataset.json among the images is found.",
            show_default=False,
        ),
    ] = None,
    channels: Annotated[int, typer.Option(min=1, max=3, help="1 gray, 3 RGB.")] = 3,
    output_format: OutputFormat = "auto",
    encoding: Encoding = None,
    quality: Quality = None,
    layout: OutputLayout = "dataset",
    data_home: DataHome = DATA_DEFAULT,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Your own images: cut to squares, resized, stored for fast reading."""
    from diffcli.commands import prepare
    from diffcli.console import datasets

    request = prepare.FolderRequest(
        home=data_home,
        source=_one_source(directory, source),
        size=size,
        recipe=recipe,
        labels=labels,
        labels_file=labels_from,
        channels=channels,
        name=name,
        force=force,
        format=output_format,
        encoding=encoding,
        quality=quality,
        layout=layout,
    )
    with datasets.preparing() as listener:
        result = prepare.prepare_folder(request, listener)
    datasets.show_prepared(result, next_command=after_preparing(result, data_home), as_json=as_json)


@app.command("ls")
def list_datasets(data_home: DataHome = DATA_DEFAULT, as_json: AsJson = False) -> None:
    """List what is prepared."""
    from diffcli.commands import dataset_listing as command
    from diffcli.console import dataset_details as console

    listing = command.list_datasets(data_home)
    draw = console.print_details_json if as_json else console.draw_listing
    draw(listing)


@app.command("verify")
def verify_dataset(
    dataset: Annotated[str, typer.Argument(metavar="DIR|NAME", help=_NAMING)],
    data_home: DataHome = DATA_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Check every byte of a prepared dataset, and that each image decodes."""
    from diffcli.commands import dataset_check as command
    from diffcli.console import dataset_details as console

    with console.verifying() as listener:
        result = command.verify(dataset, data_home, listener)
    draw = console.print_details_json if as_json else console.draw_verified
    draw(result)


@app.command("show")
def show_dataset(
    dataset: Annotated[str, typer.Argument(metavar="DIR|NAME", help=_NAMING)],
    picture: Annotated[
        Path | None,
        typer.Option("--out", metavar="PNG", help="Where to draw; by default NAME_SPLIT.png here."),
    ] = None,
    data_home: DataHome = DATA_DEFAULT,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Show the facts of a prepared dataset, and draw a grid of its images."""
    from diffcli.commands import dataset_check as command
    from diffcli.console import dataset_details as console

    details = command.show(dataset, data_home, picture, force=force)
    draw = console.print_details_json if as_json else console.draw_details
    draw(details)


def _one_source(directory: Path | None, source: Path | None) -> Path:
    given = [path for path in (directory, source) if path is not None]
    if len(given) != 1:
        raise UsageError(
            "give one source of images",
            where=f"{len(given)} were given",
            remedy="diffcli prepare folder DIR --size N, or diffcli prepare folder --source FILE --size N",
        )
    return given[0]
