"""What training and evaluation need of a dataset, and how a configuration finds one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from diffcli.config.sections import DataConfig, ModelConfig
from diffcli.config.suggest import did_you_mean, nearest
from diffcli.data.advice import KNOWN_NAMES, prepare_command
from diffcli.data.folder_dataset import FolderDataset
from diffcli.data.prepared import PreparedDataset, is_prepared, prepared_names, prepared_splits
from diffcli.data.record_file import read_record
from diffcli.data.sharded import ShardedDataset
from diffcli.errors import MissingError, UsageError
from diffcli.images.decode import printable


class Dataset(Protocol):
    """Images by index; height, width in pixels as stored; a weak hash does not see every change.

    identity: the content hash, or in place of a weak one a digest of place and times of change besides.
    """

    location: Path
    count: int
    height: int
    width: int
    channels: int
    class_names: tuple[str, ...]
    content_hash: str
    weak_hash: bool
    identity: str

    def read(self, indices: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """int64 [N], 0..count-1 -> uint8 [N, H, W, C]: `out` filled, or a new array."""

    def labels(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [N], 0..count-1 -> int64 [N], 0..classes-1; only of a dataset that has class names."""


def open_dataset(config: DataConfig, *, home: Path, directory: Path | None) -> Dataset:
    """The dataset that `data.name` and `data.split` name in the data home, or that of `directory`.

    directory: a prepared dataset, the directory of its splits, or a plain folder of images. Errors:
    MissingError with the command to type, CorruptError, UsageError.
    """
    if directory is not None:
        return _in_directory(config, directory)
    if not config.name:
        raise UsageError(
            "no dataset is named",
            where=f"data.name is empty; prepared in {home}: {', '.join(prepared_names(home)) or 'none'}",
            remedy="give --data DIR, or --set data.name=NAME",
        )
    prepared = home / config.name / config.split
    if is_prepared(prepared):
        return open_prepared(prepared)
    raise _missing(config, home)


def open_prepared(directory: Path) -> PreparedDataset | ShardedDataset:
    """A prepared dataset of either format; CorruptError."""
    if read_record(directory).format == "shards":
        return ShardedDataset(directory)
    return PreparedDataset(directory)


def check_classes(dataset: Dataset, model: ModelConfig) -> None:
    """UsageError when the model has classes, and other ones than the dataset's."""
    classes = len(dataset.class_names)
    if model.classes in (0, classes):
        return
    if not classes:
        without = "" if model.kind == "classifier" else "--set model.classes=0, or "
        raise UsageError(
            f"model.classes is {model.classes}, but the images have no labels",
            where=f"dataset {printable(dataset.location)}",
            remedy=f"{without}name the files CLASS_anything.png and prepare them again",
        )
    raise UsageError(
        f"model.classes is {model.classes}, but the dataset has {classes} classes",
        where=f"dataset {printable(dataset.location)}",
        remedy=f"--set model.classes={classes}",
    )


def _in_directory(config: DataConfig, directory: Path) -> Dataset:
    if not directory.exists():
        raise MissingError(
            f"there is no {printable(directory)}", remedy="give a prepared dataset, or a folder of images"
        )
    if not directory.is_dir():
        raise UsageError(
            f"{printable(directory)} is a file", where="--data", remedy="give the directory it lies in"
        )
    if is_prepared(directory):
        return open_prepared(directory)
    splits = prepared_splits(directory.parent, directory.name)
    if config.split in splits:
        return open_prepared(directory / config.split)
    if splits:
        raise _no_such_split(printable(directory), config.split, splits)
    return FolderDataset(directory, config)


def _missing(config: DataConfig, home: Path) -> MissingError:
    splits = prepared_splits(home, config.name)
    if splits:
        return _no_such_split(config.name, config.split, splits)
    known = {*prepared_names(home), *KNOWN_NAMES} - {config.name}
    near = nearest(config.name, sorted(known), count=1)
    guess = f"{did_you_mean(near)} Otherwise: " if near else ""
    return MissingError(
        f"dataset {config.name!r} is not prepared",
        where=f"looked in {home}; prepared there: {', '.join(prepared_names(home)) or 'none'}",
        remedy=guess + prepare_command(config),
    )


def _no_such_split(name: str, split: str, splits: tuple[str, ...]) -> MissingError:
    near = nearest(split, splits, count=1)
    return MissingError(
        f"dataset {name} has no split {split!r}",
        remedy=f"--set data.split={near[0] if near else splits[0]} (prepared: {', '.join(splits)})",
    )
