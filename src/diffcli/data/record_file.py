"""dataset.json and the array files beside it: read with distrust, written last."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from diffcli.durable import storage_errors
from diffcli.errors import CorruptError, StorageError
from diffcli.images.decode import printable
from diffcli.records.datasets import DATASET_SCHEMA, DatasetFormat, DatasetRecord

RECORD_FILE = "dataset.json"
LABELS_FILE = "labels.npy"
_FIELD_TYPES = get_type_hints(DatasetRecord)
_FORMATS = get_args(DatasetFormat)
# what a record of schema 1 does not hold
_SINCE_SCHEMA_2 = {
    "format": "packed",
    "encoding": "",
    "quality": 0,
    "images_per_shard": 0,
    "shard_sha256": [],
}


def write_record(directory: Path, record: DatasetRecord, labels: NDArray[np.int64] | None) -> None:
    """Write the labels, if there are any, and the record; StorageError."""
    text = json.dumps(dataclasses.asdict(record), indent=2, ensure_ascii=False) + "\n"
    with storage_errors(directory):
        if labels is not None:
            np.save(directory / LABELS_FILE, labels, allow_pickle=False)
        (directory / RECORD_FILE).write_text(text, encoding="utf-8")


def read_record(directory: Path) -> DatasetRecord:
    """The record of a prepared dataset; CorruptError when it is not one, or of a newer schema."""
    try:
        found = json.loads((directory / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(directory, f"{RECORD_FILE} cannot be read") from error
    if not isinstance(found, dict):
        raise damaged(directory, f"{RECORD_FILE} is not an object")
    schema = found.get("schema")
    if isinstance(schema, int) and schema > DATASET_SCHEMA:
        raise CorruptError(
            f"the dataset in {directory} has schema {schema}, newer than this diffcli's {DATASET_SCHEMA}",
            remedy="update diffcli, or prepare the dataset again",
        )
    if schema == 1:
        found = _SINCE_SCHEMA_2 | found
    fields = {name: _field(directory, found, name, kind) for name, kind in _FIELD_TYPES.items()}
    record = DatasetRecord(**fields)
    if min(record.count, record.height, record.width) < 1 or record.channels not in (1, 3):
        raise damaged(directory, f"{RECORD_FILE} names an impossible count, size or channels")
    if record.format not in _FORMATS:
        raise damaged(directory, f"{RECORD_FILE} names the format {record.format!r}")
    return record


def read_labels(directory: Path, record: DatasetRecord) -> NDArray[np.int64] | None:
    """Class numbers, int64 [count], 0..classes-1; None without classes; CorruptError for any other."""
    classes = len(record.class_names)
    if not classes:
        return None
    labels = np.array(mapped_array(directory / LABELS_FILE, np.dtype(np.int64), (record.count,)))
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        first = int(outside[0])
        raise damaged(
            directory,
            f"{LABELS_FILE}: the label of image {first} is {labels[first]}, but there are {classes} classes",
        )
    return labels


def mapped_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A .npy file that must hold exactly this; pickled objects in it are refused, not loaded."""
    if not path.is_file():
        raise damaged(path.parent, f"{path.name} is missing")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, SyntaxError, TypeError, OverflowError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        raise damaged(path.parent, f"{path.name} cannot be read ({reason})") from error
    if array.dtype != dtype or array.shape != shape:
        raise damaged(
            path.parent, f"{path.name} holds {array.dtype} {array.shape}, the record says {dtype} {shape}"
        )
    return array


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError that says what cannot be read."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise StorageError(f"cannot read {printable(path)}: {reason}") from error


def damaged(directory: Path, problem: str) -> CorruptError:
    """The error for a prepared dataset that is not as it was written."""
    return CorruptError(
        f"the prepared dataset in {directory} is damaged",
        where=problem,
        remedy="prepare it again, with --force",
    )


def _field(directory: Path, found: dict[str, Any], name: str, kind: type) -> Any:
    """The value of one key of dataset.json, checked against the type of the record's field."""
    value = found.get(name)
    if kind in (int, str) and type(value) is kind:
        return value
    if kind == tuple[str, ...] and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    problem = "wrong" if name in found else "missing"
    raise damaged(directory, f"{RECORD_FILE}: {name} is {problem}")
