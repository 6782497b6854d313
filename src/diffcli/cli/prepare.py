"""`diffcli prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffcli.cli import prepare_papers
from diffcli.cli.options import DATA_DEFAULT, AsJson, DataHome, Encoding, Force, OutputFormat, Quality
from diffcli.config.sections import LabelSource, ResizeRecipe
from diffcli.errors import UsageError

app = typer.Typer(
    help="Turn a source of images into a prepared dataset.",
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
    datasets.show_prepared(result, next_command="diffcli train --preset digits", as_json=as_json)


@app.command("folder")
def prepare_folder(
    size: Annotated[int, typer.Option(min=1, max=4096, help="Height and width to prepare, pixels.")],
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
    recipe: Annotated[
        ResizeRecipe, typer.Option(help="guided converts to RGB before resizing, improved after it.")
    ] = "guided",
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
    encoding: Encoding = "jpeg",
    quality: Quality = 95,
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
    )
    with datasets.preparing() as listener:
        result = prepare.prepare_folder(request, listener)
    datasets.show_prepared(
        result,
        next_command=f"diffcli train --preset PRESET --data {result.splits[0].path}",
        as_json=as_json,
    )


def _one_source(directory: Path | None, source: Path | None) -> Path:
    given = [path for path in (directory, source) if path is not None]
    if len(given) != 1:
        raise UsageError(
            "give one source of images",
            where=f"{len(given)} were given",
            remedy="diffcli prepare folder DIR --size N, or diffcli prepare folder --source FILE --size N",
        )
    return given[0]
