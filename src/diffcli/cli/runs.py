"""`diffcli runs`: what was trained, where it is, what it scored."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from diffcli.cli.interchange import export_run, import_run
from diffcli.cli.options import RUNS_DEFAULT, AsJson, RunsHome
from diffcli.cli.run_metrics import Metrics, Sort, list_measured_runs
from diffcli.errors import CorruptError, UsageError

app = typer.Typer(
    help="List, show, import, export, repair, pin, prune, remove and restore runs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_NAMING = "A run: its id, its name or the beginning of it, `latest`, or its directory."
_PINNING = "A run, or its checkpoint of a step: RUN or RUN@STEP."
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("ls")
def list_runs(
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many of the newest to list.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="List all, without sizes.")] = False,
    metrics: Metrics = None,
    sort: Sort = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="With --sort: the best last.")] = False,
    as_json: AsJson = False,
    home: RunsHome = RUNS_DEFAULT,
) -> None:
    """List runs, newest first, or by a number of theirs."""
    shown = None if everything else limit
    if reverse and sort is None:
        raise UsageError("--reverse is of an order", where="--reverse", remedy="say --sort by what")
    if metrics or sort is not None:
        list_measured_runs(home, shown, metrics=metrics or [], sort=sort, reverse=reverse, as_json=as_json)
        return
    from diffcli.commands import runs as command
    from diffcli.console import runs as console

    listing = command.list_runs(home, limit=shown)
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


app.command("import")(import_run)
app.command("export")(export_run)


@app.command("repair")
def repair_runs(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help=f"{_NAMING} None: all of them.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="End runs, too, that were silent for minutes on another machine."),
    ] = False,
    as_json: AsJson = False,
    home: RunsHome = RUNS_DEFAULT,
) -> None:
    """Put in order what a kill or a bad disk left behind; a run in training is passed over."""
    from diffcli.commands import run_repair as commands
    from diffcli.console import run_repair as console
    from diffcli.records.run_repair import RepairReport

    request = commands.RepairRequest(home=home, references=tuple(runs or ()), dry_run=dry_run, force=force)
    repairing = commands.repair_runs(request)
    report = RepairReport(
        home=home,
        dry_run=dry_run,
        runs=tuple(repairing) if as_json else console.draw_repaired(repairing, dry_run=dry_run),
        home_findings=commands.repair_home(request),
    )
    draw = console.print_repair_json if as_json else console.draw_repair_end
    draw(report)
    broken = [run.id for run in report.runs if run.outcome == "beyond repair"]
    if any(finding.outcome == "beyond repair" for finding in report.home_findings):
        broken.append("the runs directory")
    if broken:
        raise CorruptError(
            f"beyond repair: {', '.join(broken)}",
            where="the reasons stand above",
            remedy="restore the files from a backup, or move the runs away with `diffcli runs rm`",
        )


@app.command("pin")
def pin_runs(
    runs: Annotated[list[str], typer.Argument(metavar="RUN[@STEP]", help=_PINNING)],
    home: RunsHome = RUNS_DEFAULT,
) -> None:
    """Keep runs from removal, and checkpoints from the retention of their training."""
    from diffcli.commands import run_pins as commands
    from diffcli.console import runs as console

    console.draw_pinned(commands.pin(home, runs))


@app.command("unpin")
def unpin_runs(
    runs: Annotated[list[str], typer.Argument(metavar="RUN[@STEP]", help=_PINNING)],
    home: RunsHome = RUNS_DEFAULT,
) -> None:
    """Take pins away."""
    from diffcli.commands import run_pins as commands
    from diffcli.console import runs as console

    console.draw_unpinned(commands.unpin(home, runs))


@app.command("prune")
def prune_runs(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help=_NAMING)],
    keep_last: Annotated[
        int, typer.Option("--keep-last", min=1, help="How many of the newest good checkpoints stay.")
    ] = 2,
    keep_every: Annotated[
        int | None,
        typer.Option(
            "--keep-every",
            min=0,
            help="Checkpoints at multiples of so many steps stay; 0: none for that; "
            "unset: as the run's training.keep_every says.",
            show_default=False,
        ),
    ] = None,
    ema_snapshots_every: Annotated[
        int | None,
        typer.Option(
            "--ema-snapshots-every",
            min=1,
            help="Delete EMA snapshots but the newest and those at multiples of so many steps; "
            "unset: all stay.",
            show_default=False,
        ),
    ] = None,
    abandoned: Annotated[
        bool, typer.Option("--abandoned", help="Delete checkpoints that rollbacks set aside.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    yes: _Yes = False,
    home: RunsHome = RUNS_DEFAULT,
) -> None:
    """Free the disk of checkpoints that are not needed; what is pinned stays."""
    from diffcli.commands import run_pruning as commands
    from diffcli.commands.run_removal import find_runs
    from diffcli.console import run_pruning as console

    rules = commands.PruningRules(
        keep_last=keep_last,
        keep_every=keep_every,
        ema_snapshots_every=ema_snapshots_every,
        abandoned=abandoned,
    )
    with commands.planned_pruning(find_runs(home, runs), rules) as planned:
        if planned.superfluous and not dry_run:
            _confirm(console.pruning_question(planned), yes)
            commands.delete(planned)
    console.draw_pruned(planned, dry_run=dry_run)


@app.command("rm")
def remove_runs(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help=_NAMING)],
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
