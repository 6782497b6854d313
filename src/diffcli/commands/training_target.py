"""What to train: the configuration of a new run, or a run to go on with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.run_config import current_config
from diffcli.config.encode import config_from_json, config_to_json
from diffcli.config.resolve import FlagSetting, Resolved, resolve, revise
from diffcli.config.sections import RunConfig
from diffcli.errors import UsageError
from diffcli.randomness.streams import Stream, derived_seed
from diffcli.registry.create import NewRun, Run, check_name, open_run
from diffcli.registry.import_record import read_import_record
from diffcli.registry.json_records import ConfigJSON
from diffcli.registry.provenance import installed_versions, source_commit
from diffcli.registry.reference import CheckpointReference, checkpoint_reference
from diffcli.registry.run_record import (
    DatasetFacts,
    ParentCheckpoint,
    SettingChange,
    read_attempts,
)
from diffcli.workers import DeviceChoice

# what a resume may change: how far, how often, how it is spread over memory and devices
_CHANGEABLE = (
    "training.steps",
    "training.log_every",
    "training.save_every",
    "training.eval_every",
    "training.eval_samples",
    "training.eval_steps",
    "training.eval_features",
    "training.preview_every",
    "training.keep_last",
    "training.keep_every",
    "training.stop_within_seconds",
    "training.microbatch",
    "training.precision",
    "model.checkpoint_blocks",
    "sampling",
)
# and a rollback besides, as the same numbers would lead to the same place
_CHANGED_BY_ROLLBACK = "training.seed"
# what may differ from the run whose weights a new one starts from: not what the weights mean
_DERIVABLE = (
    "data.name",
    "data.split",
    "data.validation_split",
    "data.flip",
    "data.crop",
    "data.resize_recipe",
    "data.labels",
    "model.dropout",
    "model.checkpoint_blocks",
    "diffusion.objective",
    "training",
    "sampling",
)


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What `diffcli train` was asked for; exactly one of preset, resume and parent is given.

    parent: the run to start from, as RUN or RUN@STEP; rollback: the step of the checkpoint to go back to, of
    the run that is resumed.
    """

    preset: str | None
    resume: str | None
    parent: str | None
    rollback: int | None
    data_directory: Path | None
    name: str
    overrides: tuple[str, ...]
    seed: int | None
    precision: str | None
    steps: int | None
    device: DeviceChoice
    threads: int | None
    runs_home: Path
    data_home: Path
    command_line: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TrainingTarget:
    """A checked configuration, and the run it belongs to unless that is still to be made.

    parent: the run that a new one starts from; parent_step: that of the checkpoint, None for the newest.
    """

    request: TrainRequest
    resolved: Resolved
    resumed: Run | None
    parent: Run | None
    parent_step: int | None
    changes: tuple[SettingChange, ...]
    threads: int | None

    @property
    def config(self) -> RunConfig:
        """The configuration to train with."""
        return self.resolved.config

    def new_run(
        self, dataset: DatasetFacts, validation: DatasetFacts | None, parent: ParentCheckpoint | None
    ) -> NewRun:
        """What a new run records of itself."""
        return NewRun(
            name=self.request.name,
            preset=self.parent.record.preset if self.parent else self.resolved.preset,
            command_line=self.request.command_line,
            config=config_to_json(self.config),
            total_steps=self.config.training.steps,
            versions=installed_versions(),
            git_commit=source_commit(),
            dataset=dataset,
            parent=parent,
            validation=validation,
        )


def find_target(request: TrainRequest) -> TrainingTarget:
    """Resolve the configuration; UsageError with every problem, MissingError for no such preset or run."""
    if request.resume is not None:
        return _resumed(request, open_run(request.runs_home, request.resume))
    check_name(request.name)
    if request.parent is not None:
        return _derived(request, checkpoint_reference(request.parent))
    return TrainingTarget(
        request=request,
        resolved=resolve(preset=request.preset, overrides=request.overrides, flags=_flags(request)),
        resumed=None,
        parent=None,
        parent_step=None,
        changes=(),
        threads=request.threads,
    )


def _derived(request: TrainRequest, reference: CheckpointReference) -> TrainingTarget:
    """A new run that starts from the weights of another one."""
    parent = open_run(request.runs_home, reference.run)
    resolved = revise(
        current_config(parent),
        run=parent.id,
        changeable=_DERIVABLE,
        overrides=request.overrides,
        flags=_flags(request),
    )
    _check_embedded_classes(parent, resolved.config)
    return TrainingTarget(
        request=request,
        resolved=resolved,
        resumed=None,
        parent=parent,
        parent_step=reference.step,
        changes=(),
        threads=request.threads,
    )


def _check_embedded_classes(parent: Run, config: RunConfig) -> None:
    """Refuse to drop labels from here on, or no longer: the network has a class for none, or it has not."""
    before, after = current_config(parent).training.label_drop, config.training.label_drop
    if (before > 0) == (after > 0):
        return
    has, remedy = ("no embedding", "0") if before == 0 else ("an embedding", "a number above 0")
    raise UsageError(
        f"training.label_drop = {after}, but the network of {parent.id} has {has} of no class",
        where=f"{parent.id} was trained with training.label_drop = {before}",
        remedy=f"training.label_drop must be {remedy} here; another network needs a new run",
    )


def _resumed(request: TrainRequest, run: Run) -> TrainingTarget:
    if request.name:
        raise UsageError("a run keeps its name when it is resumed", where="--name")
    _require_raw_weights(run)
    attempts = read_attempts(run.paths)
    recorded, current = config_from_json(run.record.config), current_config(run)
    flags = _flags(request)
    if request.rollback is not None and not _asks_for_seed(request):
        seed = derived_seed(
            current.training.seed, Stream.ROLLBACK, step=request.rollback, item=len(attempts) + 1
        )
        flags.append(FlagSetting(flag="--rollback", path=_CHANGED_BY_ROLLBACK, value=seed))
    resolved = revise(
        current,
        run=run.id,
        changeable=_CHANGEABLE if request.rollback is None else (*_CHANGEABLE, _CHANGED_BY_ROLLBACK),
        overrides=request.overrides,
        flags=flags,
    )
    return TrainingTarget(
        request=request,
        resolved=resolved,
        resumed=run,
        parent=None,
        parent_step=None,
        changes=_changes(config_to_json(recorded), config_to_json(resolved.config)),
        # the number of threads decides the last bits, so a resume keeps it
        threads=request.threads or (attempts[-1].threads if attempts else None),
    )


def _require_raw_weights(run: Run) -> None:
    """UsageError for a run that was imported from averages only, before anything else is asked for."""
    imported = read_import_record(run.paths)
    if imported is None or any(file.role == "weights" for file in imported.files):
        return
    raise UsageError(
        f"{run.id} was imported from averaged weights only, with which no training goes on",
        where=imported.files[0].path,
        remedy=f"start a new run from them: diffcli train --from {run.id}",
    )


def _asks_for_seed(request: TrainRequest) -> bool:
    by_override = any(text.partition("=")[0].strip() == _CHANGED_BY_ROLLBACK for text in request.overrides)
    return by_override or request.seed is not None


def _flags(request: TrainRequest) -> list[FlagSetting]:
    flags = [
        ("--seed", "training.seed", request.seed),
        ("--precision", "training.precision", request.precision),
        ("--steps", "training.steps", request.steps),
    ]
    return [
        FlagSetting(flag=flag, path=path, value=value) for flag, path, value in flags if value is not None
    ]


def _changes(before: ConfigJSON, after: ConfigJSON) -> tuple[SettingChange, ...]:
    return tuple(
        SettingChange(key=f"{section}.{name}", before=before[section][name], after=value)
        for section, settings in after.items()
        for name, value in settings.items()
        if before[section][name] != value
    )
