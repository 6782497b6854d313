"""Options that several commands share, and what completes them; imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from diffcli.config.sections import ResizeRecipe


def complete_preset(incomplete: str) -> Iterator[str]:
    """Names of presets that begin like this."""
    from diffcli.config.presets import list_presets

    return (preset.name for preset in list_presets() if preset.name.startswith(incomplete))


DeviceName = Literal["auto", "cuda", "mps", "cpu"]
RunsHome = Annotated[
    Path, typer.Option("--runs", envvar="DIFFCLI_RUNS", help="Directory that holds the runs.")
]
DataHome = Annotated[
    Path, typer.Option("--data-home", envvar="DIFFCLI_DATA", help="Directory that holds prepared datasets.")
]
Device = Annotated[
    DeviceName, typer.Option(help="Where to compute; asking for what is not there is an error.")
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads per process; part of what makes results repeat bit by bit."),
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as training.lr=2e-4.")
]
FormatName = Literal["auto", "packed", "shards"]
EncodingName = Literal["jpeg", "webp", "png"]
OutputFormat = Annotated[
    FormatName,
    typer.Option(
        "--format", help="packed: plain pixels; shards: encoded, in tar files; auto: packed up to 64x64."
    ),
]
Encoding = Annotated[
    EncodingName | None,
    typer.Option(
        help="Of images in shards; webp and png lose nothing and are larger.",
        show_default="jpeg",
    ),
]
LayoutName = Literal["dataset", "folder"]
OutputLayout = Annotated[
    LayoutName, typer.Option("--layout", help="folder: PNG files named CLASS_00000.png, as the papers' code.")
]
Recipe = Annotated[
    ResizeRecipe, typer.Option(help="guided converts to RGB before resizing, improved after it.")
]
Size = Annotated[int, typer.Option(min=1, max=4096, help="Height and width to prepare, pixels.")]
Quality = Annotated[int | None, typer.Option(min=1, max=100, help="Of jpeg.", show_default="95")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is already there.")]

RUNS_DEFAULT = Path("runs")
DATA_DEFAULT = Path("data")
