"""`runs ls` with numbers of evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="A column with a number of each run's evaluations, such as fid, fd_pixels or bpd; "
        "may be given several times.",
    ),
]
Sort = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The best of all runs first: by a metric, loss, step (most), age (youngest) or size (largest).",
        show_default=False,
    ),
]


def list_measured_runs(
    home: Path, limit: int | None, *, metrics: Sequence[str], sort: str | None, reverse: bool, as_json: bool
) -> None:
    """List runs with columns of metrics, in the order that is asked for."""
    from diffcli.commands import run_metrics as command
    from diffcli.console import run_metrics as console

    request = command.MeasuredListingRequest(
        home=home, limit=limit, metrics=tuple(metrics), sort=sort, reverse=reverse
    )
    listing = command.list_measured_runs(request)
    draw = console.print_measured_listing_json if as_json else console.draw_measured_listing
    draw(listing)
