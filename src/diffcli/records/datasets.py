"""What is known of a prepared dataset, and what `prepare` reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DATASET_SCHEMA = 2

DatasetFormat = Literal["packed", "shards"]
Encoding = Literal["jpeg", "webp", "png"]
Layout = Literal["dataset", "folder"]

LabelOrigin = Literal["source", "labels file", "dataset.json", "filename", "directories", "none"]
# What is counted; bytes are told as megabytes.
WorkUnit = Literal["images", "bytes"]
# Called with the images or bytes done and those in all.
PrepareProgress = Callable[[int, int], None]


def no_progress(_done: int, _total: int) -> None:
    """Tell nobody."""


def _nobody(*_what: object) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class PrepareListener:
    """Who hears of a preparation while it runs.

    on_stop: told at once, in a thread, a signal that asks to stop; notice: remarks, such as where it goes on;
    begin: other work is counted from here on, such as `preparing`, in these units.
    """

    progress: PrepareProgress = no_progress
    begin: Callable[[str, WorkUnit], None] = _nobody
    on_stop: Callable[[int], None] = _nobody
    notice: Callable[[str], None] = _nobody


UNHEARD = PrepareListener()


@dataclass(frozen=True, kw_only=True)
class DatasetRecord:
    """The content of dataset.json; text that does not apply is empty, sizes are pixels.

    encoding, images_per_shard, shard_sha256: of datasets in shards; quality: of JPEG, 1..100, else 0.
    """

    schema: int
    name: str
    variant: str
    split: str
    split_rule: str
    count: int
    height: int
    width: int
    channels: int
    class_names: tuple[str, ...]
    label_source: str
    resize_recipe: str
    source_url: str
    source_bytes: int
    source_sha256: str
    content_hash: str
    diffcli_version: str
    format: str
    encoding: str
    quality: int
    images_per_shard: int
    shard_sha256: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PreparedSplit:
    """One split on disk, and how it got there; `already_there` when nothing had to be done."""

    path: Path
    split: str
    count: int
    height: int
    width: int
    channels: int
    class_names: tuple[str, ...]
    label_source: str
    size_bytes: int
    seconds: float
    already_there: bool


@dataclass(frozen=True, kw_only=True)
class PrepareResult:
    """A dataset as `prepare` leaves it: the name to train on, and its splits, train first.

    recipe: of resizing, "" when there was none; passed_over: members of the source that were left out: those
    of an archive that are neither files nor directories, and notes of macOS that are named like images.
    """

    name: str
    recipe: str
    splits: tuple[PreparedSplit, ...]
    passed_over: int = 0
