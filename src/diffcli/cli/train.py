"""`diffcli train`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffcli.cli.options import (
    DATA_DEFAULT,
    RUNS_DEFAULT,
    AsJson,
    DataHome,
    Device,
    Overrides,
    RunsHome,
    Threads,
    complete_preset,
)
from diffcli.config.sections import Precision
from diffcli.errors import UsageError

if TYPE_CHECKING:
    from diffcli.commands.launch import LaunchRequest
    from diffcli.commands.training_target import TrainRequest


def train(
    preset: Annotated[
        str | None,
        typer.Option(autocompletion=complete_preset, help="Name of a preset, or a TOML file like one."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run from its newest good checkpoint.")
    ] = None,
    parent: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN[@STEP]", help="A new run that starts from a run's weights."),
    ] = None,
    rollback: Annotated[
        int | None,
        typer.Option(
            metavar="STEP",
            min=0,
            help="With --resume: go back to the checkpoint of STEP, and on with other random numbers.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A prepared dataset, or a plain folder of images.")
    ] = None,
    name: Annotated[str, typer.Option(help="A name for the run.")] = "",
    overrides: Overrides = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Number format of the passes.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps in all.")] = None,
    device: Device = "auto",
    gpus: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Train on N GPUs of this machine, a process each.")
    ] = None,
    procs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Train in N processes on the CPU.")
    ] = None,
    threads: Threads = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be trained, and start nothing.")
    ] = False,
    list_presets: Annotated[bool, typer.Option("--list-presets", help="Print the presets.")] = False,
    as_json: AsJson = False,
    runs: RunsHome = RUNS_DEFAULT,
    data_home: DataHome = DATA_DEFAULT,
) -> None:
    """Train a diffusion model from a preset, or go on with a run.

    One process; several of this machine with --gpus or --procs, of several machines under torchrun or
    `accelerate launch -m diffcli train ...`. Ctrl-C finishes the step, saves and stops; `--resume` then goes
    on as if nothing had happened.
    """
    from diffcli.commands.launch import LaunchRequest, Processes, check_launchable
    from diffcli.commands.launched_rank import join_launcher

    launched = join_launcher()
    if list_presets:
        _show_presets(as_json=as_json)
        return
    _check_choice(preset=preset, resume=resume, parent=parent, rollback=rollback)
    processes = Processes(gpus=gpus, procs=procs)
    device = processes.device(device)
    if not launched:
        check_launchable(processes)
    if processes.count > 1 and not (launched or dry_run):
        launch_request = LaunchRequest(
            processes=processes, threads=threads, arguments=tuple(sys.argv[1:]), runs_home=runs, resume=resume
        )
        raise typer.Exit(_launch(launch_request))
    from diffcli.commands.training_target import TrainRequest

    request = TrainRequest(
        preset=preset,
        resume=resume,
        parent=parent,
        rollback=rollback,
        data_directory=data,
        name=name,
        overrides=tuple(overrides or ()),
        seed=seed,
        precision=precision,
        steps=steps,
        device=device,
        threads=threads,
        runs_home=runs,
        data_home=data_home,
        command_line=tuple(sys.argv),
    )
    if dry_run:
        _show_plan(request, as_json=as_json)
    else:
        _train(request, launched=launched, as_json=as_json)


def _check_choice(
    *, preset: str | None, resume: str | None, parent: str | None, rollback: int | None
) -> None:
    if [preset, resume, parent].count(None) != 2:
        raise UsageError(
            "say what to train: either --preset NAME, --resume RUN or --from RUN",
            remedy="diffcli train --list-presets shows the presets, diffcli runs ls the runs",
        )
    if rollback is not None and resume is None:
        raise UsageError("--rollback goes back in a run: name it with --resume RUN", where="--rollback")


def _show_presets(*, as_json: bool) -> None:
    from diffcli.config.presets import list_presets
    from diffcli.console.plans import show_presets

    show_presets(list_presets(), as_json=as_json)


def _show_plan(request: TrainRequest, *, as_json: bool) -> None:
    from diffcli.commands.plan import plan
    from diffcli.console.plans import show_plan

    show_plan(plan(request), as_json=as_json)


def _train(request: TrainRequest, *, launched: bool, as_json: bool) -> None:
    from diffcli.commands import train as command
    from diffcli.commands.launched_rank import common_errors_told_once
    from diffcli.console.plans import show_training_result
    from diffcli.console.training import TrainingScreen

    with common_errors_told_once() if launched else contextlib.nullcontext():
        result = command.train(request, TrainingScreen())
    show_training_result(result, as_json=as_json)


def _launch(request: LaunchRequest) -> int:
    from diffcli.commands.launch import launch
    from diffcli.console.terminal import is_interactive, rich_console

    try:
        return launch(request)
    finally:
        if is_interactive(sys.stderr):
            # a rank that was killed could not give it back
            rich_console(sys.stderr).show_cursor()
