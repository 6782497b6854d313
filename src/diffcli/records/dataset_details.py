"""What `prepare ls`, `prepare verify` and `prepare show` report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class DatasetRow:
    """One split in a data home; problem: why it cannot be read, then all other numbers are 0.

    encoding: "" in the packed format; classes: their number; size_bytes: of all its files.
    """

    name: str
    split: str
    path: Path
    count: int = 0
    height: int = 0
    width: int = 0
    channels: int = 0
    classes: int = 0
    format: str = ""
    encoding: str = ""
    size_bytes: int = 0
    content_hash: str = ""
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class DatasetListing:
    """All splits in a data home, by name and split."""

    home: Path
    datasets: tuple[DatasetRow, ...]


@dataclass(frozen=True, kw_only=True)
class VerifiedSplit:
    """A split whose every byte is as it was written; decoded: whether its images were decoded as well."""

    path: Path
    split: str
    count: int
    size_bytes: int
    content_hash: str
    decoded: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class VerifyResult:
    """The splits that were verified."""

    splits: tuple[VerifiedSplit, ...]


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """A class and the number of its images."""

    name: str
    count: int


@dataclass(frozen=True, kw_only=True)
class DatasetDetails:
    """One split: what dataset.json says, its size, its classes, and a picture of images spread over it.

    Text that does not apply is empty; sizes are pixels; grid_images: how many are in the picture.
    """

    row: DatasetRow
    variant: str
    split_rule: str
    label_source: str
    resize_recipe: str
    quality: int
    source_url: str
    source_bytes: int
    source_sha256: str
    diffcli_version: str
    class_counts: tuple[ClassCount, ...]
    grid: Path
    grid_images: int
