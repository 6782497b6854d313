"""`diffcli prepare` for the datasets of the papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffcli.cli.options import DATA_DEFAULT, AsJson, DataHome, Force
from diffcli.errors import UsageError

AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Accept other images than the published ones, or fewer.")
]


def cifar10(
    source: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="The python or binary archive, or its directory; it is downloaded when none is given.",
            show_default=False,
        ),
    ] = None,
    url: Annotated[str, typer.Option(help="Mirror of cifar-10-python.tar.gz.", show_default=False)] = "",
    allow_partial: AllowPartial = False,
    data_home: DataHome = DATA_DEFAULT,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """CIFAR-10, train and test: 60,000 images of 32x32 in ten classes; 170 MB are downloaded."""
    from diffcli.commands import prepare_cifar10
    from diffcli.commands.preparation import OutputChoices
    from diffcli.console import datasets

    _not_both(source, url)
    if source is None:
        with datasets.downloading() as listener:
            source = prepare_cifar10.fetch_cifar10(data_home, url=url, listener=listener)
    request = prepare_cifar10.Cifar10Request(
        choices=OutputChoices(home=data_home, force=force), source=source, allow_partial=allow_partial
    )
    with datasets.preparing() as listener:
        result = prepare_cifar10.prepare_cifar10(request, listener)
    datasets.show_prepared(result, next_command="diffcli train --preset cifar10", as_json=as_json)


def _not_both(source: Path | None, url: str) -> None:
    if source is not None and url:
        raise UsageError("--url is of no use beside files that you have", remedy="leave one of them out")
