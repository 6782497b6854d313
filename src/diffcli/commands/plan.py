"""What a training would be and need, without starting it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from diffcli.commands.memory import footprint
from diffcli.commands.training_data import open_data
from diffcli.commands.training_target import TrainingTarget, TrainRequest, find_target
from diffcli.config.toml import value_text
from diffcli.errors import DiffcliError
from diffcli.records.plans import PlannedSetting, TrainingPlan


def plan(request: TrainRequest) -> TrainingPlan:
    """Resolve everything and estimate memory and disk; raises what `find_target` raises."""
    target = find_target(request)
    training = target.config.training
    needs = footprint(target.config)
    choice = training.microbatch
    microbatch = training.batch_size if choice == "auto" else choice or training.batch_size
    data = _data(target)
    return TrainingPlan(
        preset=target.resolved.preset,
        settings=tuple(
            PlannedSetting(
                path=setting.path,
                value=value_text(setting.value),
                origin=str(setting.origin),
                help=setting.help,
            )
            for setting in target.resolved.settings
        ),
        parameters=needs.parameters,
        state_bytes=needs.state_bytes,
        activation_bytes=needs.activation_bytes_per_image * microbatch,
        microbatch=microbatch,
        microbatch_is_auto=choice == "auto",
        checkpoint_bytes=needs.checkpoint_bytes,
        # one more than is kept, because a new one is whole before an old one goes
        disk_bytes=needs.checkpoint_bytes * (training.keep_last + 1),
        free_disk_bytes=_free_bytes(request.runs_home),
        steps=training.steps,
        images=training.steps * training.batch_size,
        dataset=data.description,
        dataset_ready=data.ready,
        remedy=data.remedy,
    )


class _Data(NamedTuple):
    ready: bool
    description: str
    remedy: str


def _data(target: TrainingTarget) -> _Data:
    try:
        data = open_data(target)
    except DiffcliError as error:
        return _Data(ready=False, description=error.what, remedy=error.remedy)
    dataset = data.training
    classes = f", {len(dataset.class_names)} classes" if dataset.class_names else ""
    measured = (
        f"; validation on {data.validation.count} of {data.validation.dataset.location}"
        if data.validation
        else ""
    )
    return _Data(
        ready=True,
        description=f"{dataset.location}: {dataset.count} images of "
        f"{dataset.width}x{dataset.height}x{dataset.channels}{classes}{measured}",
        remedy="",
    )


def _free_bytes(home: Path) -> int:
    """Free space where the runs directory is or will be."""
    existing = next(directory for directory in (home, *home.absolute().parents) if directory.exists())
    return shutil.disk_usage(existing).free
