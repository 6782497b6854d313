"""`diffcli runs`: what was trained, where it is, what it scored."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from diffcli.cli.options import RUNS_DEFAULT, AsJson, RunsHome
from diffcli.errors import UsageError

app = typer.Typer(
    help="List, show, remove and restore runs.", no_args_is_help=True, pretty_exceptions_enable=False
)

_NAMING = "A run: its id, its name or the beginning of it, `latest`, or its directory."
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("ls")
def list_runs(
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many of the newest to list.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="List all, without sizes.")] = False,
    as_json: AsJson = False,
    home: RunsHome = RUNS_DEFAULT,
) -> None:
    """List runs, newest first."""
    from diffcli.commands import runs as command
    from diffcli.console import runs as console

    listing = command.list_runs(home, limit=None if everything else limit)
    draw = console.print_listing_json if as_json else console.draw_listing
    draw(listing)


@app.command("show")
def show_run(
    run: Annotated[str, typer.Argument(metavar="RUN", help=_NAMING)],
    as_json: AsJson = False,
    home: RunsHome = RUNS_DEFAULT,
) -> None:
    """Show one run: its configuration, metrics, checkpoints, samples and evaluations."""
    from diffcli.commands.run_details import show_run as command
    from diffcli.console import run_details as console

    details = command(home, run)
    draw = console.print_details_json if as_json else console.draw_details
    draw(details)


@app.command("rm")
def remove_runs(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help=_NAMING)],
    yes: _Yes = False,
    home: RunsHome = RUNS_DEFAULT,
) -> None:
    """Move runs to the trash."""
    from diffcli.commands import run_removal as commands
    from diffcli.console import runs as console

    found = commands.find_runs(home, runs)
    _confirm(console.removal_question([run.directory.name for run in found]), yes)
    console.draw_removed(commands.remove_runs(home, found))


@app.command("restore")
def restore_run(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The id of a run in the trash.")],
    home: RunsHome = RUNS_DEFAULT,
) -> None:
    """Bring a run back from the trash."""
    from diffcli.commands import run_removal as commands
    from diffcli.console import runs as console

    console.draw_restored(commands.restore_run(home, run))


@app.command("purge")
def purge_trash(yes: _Yes = False, home: RunsHome = RUNS_DEFAULT) -> None:
    """Delete what is in the trash for good."""
    from diffcli.commands import run_removal as commands
    from diffcli.console import runs as console

    trash = commands.inspect_trash(home)
    if trash.ids:
        _confirm(console.purge_question(trash), yes)
    console.draw_purged(commands.purge_trash(home))


def _confirm(question: str, yes: bool) -> None:
    """Ask on a terminal; UsageError where nobody can answer."""
    if yes:
        return
    from diffcli.console.terminal import is_interactive

    if sys.stdin is None or not sys.stdin.isatty() or not is_interactive(sys.stderr):
        raise UsageError("this needs a yes", where=question, remedy="add --yes")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)
