"""Images of another split of the dataset that is trained on, to measure a training by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffcli.config.sections import RunConfig
from diffcli.config.suggest import nearest
from diffcli.data.batches import Batch
from diffcli.data.cropping import centered
from diffcli.data.dataset import Dataset, open_prepared
from diffcli.data.prepared import is_prepared, prepared_splits
from diffcli.errors import MissingError, UsageError
from diffcli.images.decode import printable
from diffcli.randomness.streams import Stream, shuffled


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOutImages:
    """The images to validate on, in a fixed order: none mirrored, cut in the middle if too large.

    indices: int64 [count], their numbers in the dataset.
    """

    dataset: Dataset
    config: RunConfig
    indices: Tensor

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.indices)

    def batch(self, places: range) -> Batch:
        """The images at these places of the order, 0..count-1."""
        indices = self.indices[places.start : places.stop].numpy()
        labels = torch.from_numpy(self.dataset.labels(indices)) if self.dataset.class_names else None
        squares = centered(self.dataset.read(indices), self.config.data)
        return Batch(
            images=torch.from_numpy(squares), labels=labels, flips=torch.zeros(len(places), dtype=torch.bool)
        )


def held_out_images(training: Dataset, config: RunConfig, *, seed: int) -> HeldOutImages:
    """The images that a configuration validates on, beside those it trains on; the seed decides which.

    Raises MissingError when there is no such split, CorruptError when it is damaged, and UsageError when it
    does not suit the run.
    """
    dataset = _beside(training, config)
    _check_size(dataset, config)
    if config.model.classes:
        _check_classes(dataset, training)
    order = shuffled(seed, Stream.VALIDATION_ORDER, dataset.count, step=0)
    return HeldOutImages(dataset=dataset, config=config, indices=order[: config.training.eval_images])


def _beside(training: Dataset, config: RunConfig) -> Dataset:
    """The validation split, which lies beside the split that is trained on."""
    split, location = config.data.validation_split, training.location
    if not is_prepared(location):
        raise UsageError(
            f"{printable(location)} is a plain folder, which has no split {split!r} to validate on",
            where="data.validation_split",
            remedy="prepare it and its validation images, or --set training.eval_every=0",
        )
    above = location.absolute().parent
    splits = prepared_splits(above.parent, above.name)
    if split in splits:
        return open_prepared(location.with_name(split))
    others = [name for name in splits if name != location.name]
    near = nearest(split, others, count=1)
    choose = f"--set data.validation_split={near[0] if near else others[0]}" if others else ""
    raise MissingError(
        f"there is no split {split!r} beside {printable(location)} to validate on",
        where=f"data.validation_split; prepared there: {', '.join(splits)}",
        remedy=", or ".join(filter(None, (choose, "--set training.eval_every=0"))),
    )


def _check_size(dataset: Dataset, config: RunConfig) -> None:
    data = config.data
    if dataset.channels == data.channels and min(dataset.height, dataset.width) >= data.resolution:
        return
    raise UsageError(
        f"the images to validate on are {dataset.width}x{dataset.height}x{dataset.channels}, "
        f"the network takes {data.resolution}x{data.resolution}x{data.channels}",
        where=f"dataset {printable(dataset.location)}",
        remedy="prepare them as the others, or --set training.eval_every=0",
    )


def _check_classes(dataset: Dataset, training: Dataset) -> None:
    if dataset.class_names == training.class_names:
        return
    raise UsageError(
        "the images to validate on have other classes than those to train on",
        where=f"{printable(dataset.location)} has {len(dataset.class_names)} classes, "
        f"{printable(training.location)} {len(training.class_names)}; names and order count",
        remedy="prepare both with all of the same classes, or --set training.eval_every=0",
    )
