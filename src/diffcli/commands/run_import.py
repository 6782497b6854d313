"""Make a run of weights, or of a whole training, by the original programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from diffcli import durable
from diffcli.commands.import_optimizer import differing_settings, moments_under_our_names
from diffcli.commands.import_settings import ImportSettings, settle
from diffcli.commands.import_source import read_source
from diffcli.config.encode import config_to_json
from diffcli.interchange.identify import Choices
from diffcli.records.interchange import ImportedRun
from diffcli.records.runs import StoredState
from diffcli.registry.create import NewRun, Run, check_name, create_run
from diffcli.registry.events import Event, append_event
from diffcli.registry.import_record import ImportedFile, ImportedRole, ImportRecord, write_import_record
from diffcli.registry.paths import RunPaths
from diffcli.registry.provenance import installed_versions, source_commit
from diffcli.registry.run_record import UNKNOWN_DATASET
from diffcli.registry.status import read_status, write_status
from diffcli.training import checkpoints
from diffcli.training.checkpoints import CheckpointContent
from diffcli.training.foreign_state import ForeignState, checkpoint_of
from diffcli.training.state import RAW_WEIGHTS, average_file


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What `diffcli runs import` was asked for; step: None for what the names of the files tell."""

    path: Path
    preset: str | None
    overrides: tuple[str, ...]
    step: int | None
    name: str
    runs_home: Path
    command_line: tuple[str, ...]


def import_run(request: ImportRequest) -> ImportedRun:
    """Check the files in every name and shape, and make a run of them, which appears whole.

    Raises UsageError for what is no such file, for another network, and when it is not known which preset's
    it is; CorruptError for damaged files and those that would run code; MissingError, StorageError.
    """
    check_name(request.name)
    source = read_source(request.path, request.step)
    settings = settle(source, Choices(preset=request.preset, overrides=request.overrides), request.step)
    config = settings.config
    moments = source.moments(config)
    if moments is not None:
        differing = differing_settings(moments, config, settings.step)
        settings = dataclasses.replace(settings, notices=(*settings.notices, *differing))
    state = ForeignState(
        step=settings.step,
        weights=None if settings.model is None else source.network(settings.model, config),
        averages={rate: source.network(path, config) for rate, path in settings.averages.items()},
        moments=None if moments is None else moments_under_our_names(moments, config),
    )
    filling = _Filling(
        content=checkpoint_of(state, config),
        settings=settings,
        files=tuple(_recorded_files(settings)),
        told=f"imported from {request.path}",
    )
    run = create_run(request.runs_home, _new_run(request, settings), fill=filling)
    return _result(run, settings, filling.files)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Filling:
    """What an imported run holds from the beginning; told: how it came to be."""

    content: CheckpointContent
    settings: ImportSettings
    files: tuple[ImportedFile, ...]
    told: str

    def __call__(self, paths: RunPaths) -> None:
        """Write it."""
        settings, now = self.settings, datetime.now(UTC)
        checkpoints.save(paths.checkpoints, settings.step, self.content)
        record = ImportRecord(
            imported_at=now,
            step=settings.step,
            files=self.files,
            how=settings.identified.how,
            notices=settings.notices,
        )
        write_import_record(paths, record)
        training = settings.config.training
        state: StoredState = "completed" if settings.step >= training.steps else "stopped"
        append_event(
            paths.events, Event(at=now, attempt=0, step=settings.step, kind=state, message=self.told)
        )
        status = dataclasses.replace(
            read_status(paths),
            state=state,
            step=settings.step,
            images_seen=settings.step * training.batch_size,
            exit_code=0,
            reason=self.told,
        )
        write_status(paths, status)


def _new_run(request: ImportRequest, settings: ImportSettings) -> NewRun:
    return NewRun(
        name=request.name,
        preset=settings.resolved.preset,
        command_line=request.command_line,
        config=config_to_json(settings.config),
        total_steps=settings.config.training.steps,
        versions=installed_versions(),
        git_commit=source_commit(),
        dataset=UNKNOWN_DATASET,
    )


def _recorded_files(settings: ImportSettings) -> Iterator[ImportedFile]:
    if settings.model is not None:
        yield _recorded(settings.model, "weights")
    for rate, path in settings.averages.items():
        yield _recorded(path, "average", rate)
    if settings.optimizer is not None:
        yield _recorded(settings.optimizer, "optimizer")


def _recorded(path: Path, role: ImportedRole, rate: float | None = None) -> ImportedFile:
    return ImportedFile(
        role=role,
        rate=rate,
        path=str(path.absolute()),
        bytes=path.stat().st_size,
        sha256=durable.sha256(path),
    )


def _result(run: Run, settings: ImportSettings, files: tuple[ImportedFile, ...]) -> ImportedRun:
    averages = tuple(average_file(rate) for rate in settings.averages)
    return ImportedRun(
        run_id=run.id,
        directory=run.paths.directory,
        preset=settings.resolved.preset,
        kind=settings.config.model.kind,
        how=settings.identified.how,
        step=settings.step,
        total_steps=settings.config.training.steps,
        weights=averages if settings.model is None else (*averages, RAW_WEIGHTS),
        optimizer=settings.optimizer is not None,
        resumable=settings.resumable,
        files=tuple(Path(file.path) for file in files),
        notices=settings.notices,
    )
