"""The images that a training sees: found by its target, and the same as before when it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.training_target import TrainingTarget
from diffcli.data.dataset import Dataset, check_classes, open_dataset
from diffcli.data.validation import HeldOutImages, held_out_images
from diffcli.errors import UsageError
from diffcli.registry.create import Run
from diffcli.registry.run_record import UNKNOWN_DATASET, DatasetFacts, known_dataset, known_validation
from diffcli.training.validation import VALIDATION_SEED

_WHICH_DATA = ("data.name", "data.split")


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The dataset to train on, and the images to measure the training by, if it is measured."""

    training: Dataset
    validation: HeldOutImages | None


def open_data(target: TrainingTarget) -> TrainingData:
    """The data of a training; UsageError when a resumed run had others, or when they do not suit it."""
    request = target.request
    directory = request.data_directory
    if directory is None:
        directory = _recorded_location(target)
    dataset = open_dataset(target.config.data, home=request.data_home, directory=directory)
    if target.resumed is not None:
        recorded = known_dataset(target.resumed.paths, target.resumed.record)
        _check_same_data(target.resumed, dataset, recorded)
    check_classes(dataset, target.config.model)
    return TrainingData(training=dataset, validation=_held_out(target, dataset))


def _held_out(target: TrainingTarget, dataset: Dataset) -> HeldOutImages | None:
    config = target.config
    if not config.training.eval_every or not config.data.validation_split:
        return None
    images = held_out_images(dataset, config, seed=VALIDATION_SEED)
    if target.resumed is not None:
        recorded = known_validation(target.resumed.paths, target.resumed.record)
        if recorded is not None:
            _check_same_data(target.resumed, images.dataset, recorded, use="measured")
    return images


def _recorded_location(target: TrainingTarget) -> Path | None:
    """Where the data of the run that is resumed, or started from, lay; None when others are asked for."""
    if target.resumed is not None:
        return _location_of_data(target.resumed)
    if target.parent is None or any(target.resolved.origins[path].kind != "run" for path in _WHICH_DATA):
        return None
    return _location_of_data(target.parent)


def _location_of_data(run: Run) -> Path | None:
    """Where the data of a run lay; None when it was imported and nobody has said yet."""
    facts = known_dataset(run.paths, run.record)
    return None if facts == UNKNOWN_DATASET else Path(facts.path)


def facts_of(dataset: Dataset) -> DatasetFacts:
    """What a run records of the dataset that it is trained on."""
    return DatasetFacts(
        path=str(dataset.location.absolute()),
        content_hash=dataset.content_hash,
        weak_hash=dataset.weak_hash,
        count=dataset.count,
        class_names=dataset.class_names,
    )


def _check_same_data(run: Run, dataset: Dataset, recorded: DatasetFacts, *, use: str = "trained") -> None:
    if recorded == UNKNOWN_DATASET or dataset.content_hash == recorded.content_hash:
        return
    raise UsageError(
        f"the dataset is not the one that {run.id} was {use} on",
        where=f"{dataset.location}: {dataset.count} images, then {recorded.count}; the content hash differs",
        remedy="give the first one with --data DIR, or start a new run",
    )
