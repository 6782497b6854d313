"""The five commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from diffcli import __version__
from diffcli.cli.evaluate import evaluate
from diffcli.cli.prepare import app as prepare_app
from diffcli.cli.runs import app as runs_app
from diffcli.cli.sample import sample
from diffcli.cli.train import train
from diffcli.console.terminal import is_interactive

app = typer.Typer(
    name="diffcli",
    help="Train, sample and evaluate pixel diffusion models, with runs that are kept.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(prepare_app, name="prepare")
app.command("train")(train)
app.command("sample")(sample)
app.command("eval")(evaluate)
app.add_typer(runs_app, name="runs")

# wide enough that no command's line is cut
_PLAIN_HELP_WIDTH = 100


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"diffcli {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere on the line.")
    ] = False,
) -> None:
    """Train, sample and evaluate pixel diffusion models, with runs that are kept."""


def run_app(arguments: Sequence[str]) -> None:
    """Parse the arguments and run their command; ends with SystemExit when Typer ends the program."""
    # boxes only where a person sees them; without Rich, help is there sooner too
    watched = is_interactive(sys.stdout) and is_interactive(sys.stderr)
    app.rich_markup_mode = "rich" if watched else None
    # under `accelerate launch -m` and torchrun argv[0] is a file name, not what a user typed
    app(args=list(arguments), prog_name="diffcli", terminal_width=None if watched else _PLAIN_HELP_WIDTH)
