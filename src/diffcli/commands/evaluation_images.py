"""The images that a run is evaluated on, as its network sees them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffcli.config.sections import RunConfig
from diffcli.config.suggest import nearest
from diffcli.data.cropping import centered
from diffcli.data.dataset import Dataset, open_dataset
from diffcli.data.prepared import PreparedDataset, is_prepared, prepared_splits
from diffcli.data.sharded import ShardedDataset
from diffcli.errors import MissingError, UsageError
from diffcli.images.conversion import from_uint8
from diffcli.images.resize import area_downsampled
from diffcli.models.conditioning import Conditioning
from diffcli.records.evaluations import EvaluatedImages
from diffcli.registry.create import Run
from diffcli.registry.run_record import UNKNOWN_DATASET, known_dataset

_DEFAULT_SPLIT = "test"


@dataclass(frozen=True, kw_only=True)
class ImageChoice:
    """What was asked for; None: the split "test", the dataset the run was trained on, all images."""

    split: str | None
    directory: Path | None
    count: int | None
    data_home: Path


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageBatch:
    """Images by index: indices int64 [N], x_start [N, C, H, W] in [-1, 1], and their conditioning."""

    indices: Tensor
    x_start: Tensor
    conditioning: Conditioning


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationImages:
    """The first `count` images of a dataset, in its order, none mirrored, cut in the middle if too large."""

    dataset: Dataset
    config: RunConfig
    count: int

    def batch(self, indices: range, device: torch.device) -> ImageBatch:
        """The images of these indices, 0..count-1, on the device."""
        numbers = np.arange(indices.start, indices.stop)
        squares = torch.from_numpy(centered(self.dataset.read(numbers), self.config.data))
        x_start = from_uint8(squares.permute(0, 3, 1, 2).contiguous().to(device))
        low_resolution = self.config.data.low_resolution
        labels = self.dataset.labels(numbers) if self.config.model.classes else None
        return ImageBatch(
            indices=torch.from_numpy(numbers).to(device),
            x_start=x_start,
            conditioning=Conditioning(
                y=None if labels is None else torch.from_numpy(labels).to(device),
                low_res=area_downsampled(x_start, low_resolution) if low_resolution else None,
            ),
        )

    def described(self, run: Run) -> EvaluatedImages:
        """What a record says of them."""
        dataset = self.dataset
        record = dataset.record if isinstance(dataset, PreparedDataset | ShardedDataset) else None
        return EvaluatedImages(
            location=dataset.location.absolute(),
            split=None if record is None else record.split,
            count=self.count,
            total=dataset.count,
            content_hash=dataset.content_hash,
            weak_hash=dataset.weak_hash,
            trained_on=dataset.content_hash == known_dataset(run.paths, run.record).content_hash,
            name="" if record is None else record.name,
            variant="" if record is None else record.variant,
        )


def choose_images(choice: ImageChoice, run: Run, config: RunConfig) -> EvaluationImages:
    """Find and check them; MissingError for what is not there, UsageError for what does not suit the run."""
    dataset = _open(choice, run, config)
    _check_size(dataset, config)
    if config.model.classes:
        _check_classes(dataset, run, config)
    count = dataset.count if choice.count is None else choice.count
    if count > dataset.count:
        raise UsageError(
            f"--num is {count}, but there are {dataset.count} images in {dataset.location}",
            remedy=f"give at most {dataset.count}, or leave --num out: no image is taken twice",
        )
    return EvaluationImages(dataset=dataset, config=config, count=count)


def _open(choice: ImageChoice, run: Run, config: RunConfig) -> Dataset:
    directory = _directory(choice, run, config)
    split = choice.split or _DEFAULT_SPLIT
    above = choice.data_home / config.data.name if directory is None else directory
    splits = prepared_splits(above.parent, above.name)
    if splits and split not in splits:
        near = nearest(split, splits, count=1)
        raise MissingError(
            f"there is no split {split!r} in {above}",
            where=f"splits there: {', '.join(splits)}",
            remedy=f"--split {near[0] if near else splits[0]}",
        )
    if choice.split and directory is not None and not splits:
        raise UsageError(
            f"there are no splits in {directory}",
            where="--split",
            remedy="leave --split out",
        )
    data = dataclasses.replace(config.data, split=split)
    return open_dataset(data, home=choice.data_home, directory=directory)


def _directory(choice: ImageChoice, run: Run, config: RunConfig) -> Path | None:
    """What was asked for, or the splits beside the one the run was trained on; None: data.name says it."""
    if choice.directory is not None:
        return choice.directory
    facts = known_dataset(run.paths, run.record)
    trained_on = Path(facts.path)
    if facts != UNKNOWN_DATASET and is_prepared(trained_on):
        return trained_on.parent
    if config.data.name:
        return None
    raise MissingError(
        f"no images are known to evaluate {run.id} on",
        where="it was imported, and its dataset is not known"
        if facts == UNKNOWN_DATASET
        else f"it was trained on the plain folder {trained_on}, which has no splits",
        remedy="give images it has not seen with --data DIR",
    )


def _check_size(dataset: Dataset, config: RunConfig) -> None:
    data = config.data
    if dataset.channels == data.channels and min(dataset.height, dataset.width) >= data.resolution:
        return
    raise UsageError(
        f"the images are {dataset.width}x{dataset.height}x{dataset.channels}, the network takes "
        f"{data.resolution}x{data.resolution}x{data.channels}",
        where=str(dataset.location),
        remedy=f"prepare them anew: diffcli prepare folder DIR --size {data.resolution} "
        f"--channels {data.channels}",
    )


def _check_classes(dataset: Dataset, run: Run, config: RunConfig) -> None:
    facts = known_dataset(run.paths, run.record)
    if facts == UNKNOWN_DATASET:
        # the names of an imported run's classes are nowhere written
        known, fits = config.model.classes, len(dataset.class_names) == config.model.classes
    else:
        known, fits = len(facts.class_names), dataset.class_names == facts.class_names
    if fits:
        return
    raise UsageError(
        f"the classes of the images are not those that {run.id} was trained on",
        where=f"{dataset.location} has {len(dataset.class_names)} classes, the run {known}; "
        "names and order count",
        remedy="give images of all the same classes with --data DIR",
    )
