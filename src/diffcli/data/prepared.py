"""The packed format of a prepared dataset: images.npy, labels.npy and dataset.json in one directory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from diffcli.data.staging import staged_directory
from diffcli.durable import storage_errors
from diffcli.errors import CorruptError
from diffcli.records.datasets import DATASET_SCHEMA, DatasetRecord

RECORD_FILE = "dataset.json"
_IMAGES_FILE = "images.npy"
_LABELS_FILE = "labels.npy"
_HASH_BLOCK_IMAGES = 1024


class PreparedDataset:
    """A prepared dataset on disk; images stay in a memory-mapped file. Implements `Dataset`."""

    weak_hash = False

    def __init__(self, directory: Path) -> None:
        """Open and check everything but the pixels; CorruptError when something is not as the record says."""
        record = _read_record(directory)
        self.location = directory
        self.record = record
        self.count = record.count
        self.height = record.height
        self.width = record.width
        self.channels = record.channels
        self.class_names = record.class_names
        self.content_hash = record.content_hash
        shape = (record.count, record.height, record.width, record.channels)
        self._images = _mapped(directory / _IMAGES_FILE, np.dtype(np.uint8), shape)
        self._labels = _read_labels(directory, record) if record.class_names else None

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copies of images: int64 [N] -> uint8 [N, H, W, C]."""
        return np.asarray(self._images[indices])

    def labels(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Class numbers: int64 [N] -> int64 [N]; only of a dataset that has class names."""
        assert self._labels is not None
        return np.asarray(self._labels[indices])

    def require_intact(self) -> None:
        """Read every pixel; CorruptError when they are not those that were written."""
        digest = _start_hash(self.record)
        for start in range(0, self.count, _HASH_BLOCK_IMAGES):
            digest.update(_bytes(self._images[start : start + _HASH_BLOCK_IMAGES]))
        if _finish_hash(digest, self._labels) != self.content_hash:
            raise _corrupt(self.location, "its images or labels have changed since they were prepared")


def write_packed(
    target: Path,
    facts: DatasetRecord,
    blocks: Iterable[NDArray[np.uint8]],
    labels: NDArray[np.int64] | None,
    *,
    replace: bool,
) -> DatasetRecord:
    """Write a dataset as the directory `target`, whole or not at all; returns its record with the hash.

    facts: everything but the content hash; blocks: uint8 [n, H, W, C], `facts.count` images in all, consumed
    one at a time; labels: int64 [count], 0..classes-1, or None. Errors: those of `staged_directory` and of
    the blocks.
    """
    with staged_directory(target, replace=replace) as staging:
        digest = _start_hash(facts)
        _write_images(staging / _IMAGES_FILE, facts, blocks, digest)
        record = dataclasses.replace(facts, content_hash=_finish_hash(digest, labels))
        text = json.dumps(dataclasses.asdict(record), indent=2, ensure_ascii=False) + "\n"
        with storage_errors(staging):
            if labels is not None:
                np.save(staging / _LABELS_FILE, labels, allow_pickle=False)
            (staging / RECORD_FILE).write_text(text, encoding="utf-8")
    return record


def is_prepared(directory: Path) -> bool:
    """Whether a directory is a prepared dataset, good or bad."""
    return (directory / RECORD_FILE).is_file()


def prepared_splits(home: Path, name: str) -> tuple[str, ...]:
    """The splits of a dataset under a data home, sorted; empty when there are none."""
    return tuple(sorted(path.parent.name for path in (home / name).glob(f"[!.]*/{RECORD_FILE}")))


def prepared_names(home: Path) -> tuple[str, ...]:
    """The datasets prepared under a data home, sorted."""
    return tuple(sorted({path.parent.parent.name for path in home.glob(f"[!.]*/[!.]*/{RECORD_FILE}")}))


def content_hash(facts: DatasetRecord, images: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> str:
    """The hash that `write_packed` gives a dataset of these images."""
    digest = _start_hash(facts)
    digest.update(_bytes(images))
    return _finish_hash(digest, labels)


def _write_images(
    path: Path, facts: DatasetRecord, blocks: Iterable[NDArray[np.uint8]], digest: hashlib._Hash
) -> None:
    shape = (facts.count, facts.height, facts.width, facts.channels)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    written = 0
    # not through a memory map: there a full disk is a signal, not an error
    with storage_errors(path), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            assert block.dtype == np.uint8
            assert block.shape[1:] == shape[1:]
            pixels = _bytes(block)
            file.write(pixels)
            digest.update(pixels)
            written += len(block)
    assert written == facts.count


def _bytes(pixels: NDArray[np.uint8]) -> memoryview:
    return np.ascontiguousarray(pixels).data


def _start_hash(facts: DatasetRecord) -> hashlib._Hash:
    shape = [facts.count, facts.height, facts.width, facts.channels]
    return hashlib.sha256(json.dumps([shape, facts.class_names]).encode())


def _finish_hash(digest: hashlib._Hash, labels: NDArray[np.int64] | None) -> str:
    if labels is not None:
        digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _read_record(directory: Path) -> DatasetRecord:
    try:
        found = json.loads((directory / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _corrupt(directory, f"{RECORD_FILE} cannot be read") from error
    if not isinstance(found, dict):
        raise _corrupt(directory, f"{RECORD_FILE} is not an object")
    schema = found.get("schema")
    if isinstance(schema, int) and schema > DATASET_SCHEMA:
        raise CorruptError(
            f"the dataset in {directory} has schema {schema}, newer than this diffcli's {DATASET_SCHEMA}",
            remedy="update diffcli, or prepare the dataset again",
        )
    fields = {name: _field(directory, found, name, kind) for name, kind in _FIELD_TYPES.items()}
    record = DatasetRecord(**fields)
    if min(record.count, record.height, record.width) < 1 or record.channels not in (1, 3):
        raise _corrupt(directory, f"{RECORD_FILE} names an impossible count, size or channels")
    return record


_FIELD_TYPES = get_type_hints(DatasetRecord)


def _field(directory: Path, found: dict[str, Any], name: str, kind: type) -> Any:
    """The value of one key of dataset.json, checked against the type of the record's field."""
    value = found.get(name)
    if kind in (int, str) and type(value) is kind:
        return value
    if kind == tuple[str, ...] and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    problem = "wrong" if name in found else "missing"
    raise _corrupt(directory, f"{RECORD_FILE}: {name} is {problem}")


def _read_labels(directory: Path, record: DatasetRecord) -> NDArray[np.int64]:
    labels = np.array(_mapped(directory / _LABELS_FILE, np.dtype(np.int64), (record.count,)))
    classes = len(record.class_names)
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        first = int(outside[0])
        raise _corrupt(
            directory,
            f"{_LABELS_FILE}: the label of image {first} is {labels[first]}, but there are {classes} classes",
        )
    return labels


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A .npy file that must hold exactly this; pickled objects in it are refused, not loaded."""
    if not path.is_file():
        raise _corrupt(path.parent, f"{path.name} is missing")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, SyntaxError, TypeError, OverflowError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        raise _corrupt(path.parent, f"{path.name} cannot be read ({reason})") from error
    if array.dtype != dtype or array.shape != shape:
        raise _corrupt(
            path.parent, f"{path.name} holds {array.dtype} {array.shape}, the record says {dtype} {shape}"
        )
    return array


def _corrupt(directory: Path, problem: str) -> CorruptError:
    return CorruptError(
        f"the prepared dataset in {directory} is damaged",
        where=problem,
        remedy="prepare it again, with --force",
    )
