"""`prepare ls`: what is prepared in a data home, and where a dataset that is named lies."""

from __future__ import annotations

from pathlib import Path

from diffcli.config.suggest import did_you_mean, nearest
from diffcli.data.prepared import is_prepared, prepared_names, prepared_splits
from diffcli.data.record_file import read_record
from diffcli.errors import CorruptError, MissingError
from diffcli.images.decode import printable
from diffcli.records.dataset_details import DatasetListing, DatasetRow


def list_datasets(home: Path) -> DatasetListing:
    """Every split in a data home; one whose record cannot be read is a row with its problem."""
    rows = [
        dataset_row(home / name / split)
        for name in prepared_names(home)
        for split in prepared_splits(home, name)
    ]
    return DatasetListing(home=home, datasets=tuple(rows))


def dataset_row(directory: Path) -> DatasetRow:
    """One split, as its record tells it."""
    try:
        record = read_record(directory)
    except CorruptError as error:
        problem = error.where or error.what
        return DatasetRow(name=directory.parent.name, split=directory.name, path=directory, problem=problem)
    return DatasetRow(
        name=directory.parent.name,
        split=directory.name,
        path=directory,
        count=record.count,
        height=record.height,
        width=record.width,
        channels=record.channels,
        classes=len(record.class_names),
        format=record.format,
        encoding=record.encoding,
        size_bytes=size_bytes(directory),
        content_hash=record.content_hash,
    )


def size_bytes(directory: Path) -> int:
    """All files of a split together."""
    return sum(file.stat().st_size for file in directory.iterdir() if file.is_file())


def splits_named(reference: str, home: Path) -> tuple[Path, ...]:
    """The directories of a dataset: a directory of one or of its splits, or a name in the data home.

    MissingError, with the nearest name, when nothing prepared is there.
    """
    for directory in (Path(reference), home / reference):
        if is_prepared(directory):
            return (directory,)
        if splits := prepared_splits(directory.parent, directory.name):
            return tuple(directory / split for split in splits)
    names = prepared_names(home)
    what = f"there is no prepared dataset {printable(reference)!r}"
    if Path(reference).is_dir():
        what = f"{printable(reference)} is a directory without a prepared dataset"
    raise MissingError(
        what,
        where=f"prepared in {printable(home)}: {', '.join(names) or 'none'}",
        remedy=did_you_mean(nearest(reference, names, count=1)) or "diffcli prepare ls lists what is there",
    )
