"""Classes of images from a file: dataset.json as EDM writes it, a JSON object, or a csv of path and class."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffcli.data.sources.classes import Classes
from diffcli.data.sources.image_files import is_image
from diffcli.data.sources.named_files import read_small
from diffcli.errors import CorruptError
from diffcli.images.decode import printable

DATASET_JSON = "dataset.json"
# as many as a model may have
_MOST_CLASSES = 100_000
_HEAD_BYTES = 256
# as pandas writes whole numbers of a column with gaps
_NUMBER = re.compile(r"([+-]?[0-9]+)(\.0*)?")
_DIGITS = 18
_LABELS_FIRST = re.compile(rb'\s*\{\s*"labels"')
_REMEDY = "name every image with its class: a csv of path,class or a JSON object"


def read_label_file(path: Path) -> dict[str, int | str]:
    """The class of each path; numbers from 0 where all are numbers, else names.

    Errors: MissingError, StorageError, CorruptError when the file tells no classes.
    """
    content = read_small(path)
    if path.suffix.lower() == ".csv":
        return _checked(_from_csv(content, path.name), path.name)
    found = labels_of_json(content, path.name)
    if found is None:
        raise _unusable(path.name, "it holds no labels")
    return found


def labels_of_json(content: bytes, name: str) -> dict[str, int | str] | None:
    """The class of each path in `{"labels": [[path, class], ...]}` or `{path: class, ...}`.

    None when it holds other things, such as the record of a prepared dataset, or `labels` is null.
    """
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _unusable(name, "it is no JSON") from error
    if isinstance(found, dict) and "labels" in found:
        found = found["labels"]
        if found is None:
            return None
        if not isinstance(found, list) or not all(
            isinstance(pair, list) and len(pair) == 2 for pair in found
        ):
            raise _unusable(name, "`labels` is no list of path and class")
        return _checked(found, name)
    if isinstance(found, dict) and "schema" not in found:
        return _checked(found.items(), name)
    return None


def is_label_file(path: Path) -> bool:
    """Whether a dataset.json is EDM's, by its beginning; a prepared dataset's record has that name too."""
    try:
        with path.open("rb") as file:
            return _LABELS_FIRST.match(file.read(_HEAD_BYTES)) is not None
    except OSError:
        return False


def classes_by_labels(paths: Sequence[str], labels: Mapping[str, int | str], name: str) -> Classes:
    """The class of each image; numbers keep their value. CorruptError for an image that has none."""
    missing = [path for path in paths if path not in labels]
    if missing:
        raise _unusable(
            name, f"{len(missing)} images have no class in it; the first: {printable(missing[0])}"
        )
    found = [labels[path] for path in paths]
    if all(isinstance(label, int) for label in labels.values()):
        # all that the file knows, so that a part of the images has the numbers of the whole
        names = tuple(str(number) for number in range(1 + max(map(int, labels.values()))))
        return Classes(names=names, labels=np.array(found, dtype=np.int64))
    known = sorted({str(label) for label in labels.values()})
    number = {label: place for place, label in enumerate(known)}
    return Classes(
        names=tuple(map(printable, known)),
        labels=np.array([number[str(label)] for label in found], dtype=np.int64),
    )


def _from_csv(content: bytes, name: str) -> list[tuple[str, str | int]]:
    try:
        # spreadsheets put a mark in front of UTF-8
        text = io.StringIO(content.decode("utf-8-sig"), newline=None)
        rows = [[cell.strip() for cell in row] for row in csv.reader(text, skipinitialspace=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unusable(name, "it is no csv in UTF-8") from error
    wrong = next((number for number, row in enumerate(rows, start=1) if len(row) != 2), None)
    if wrong is not None:
        raise _unusable(name, f"row {wrong} is not a path and a class")
    if rows and _is_header(rows[0]):
        rows = rows[1:]
    return [(path, _label(text)) for path, text in rows]


def _is_header(row: Sequence[str]) -> bool:
    """Whether the first row names its columns: what it has for a path is none of an image."""
    path, label = row
    return not is_image(path) and isinstance(_label(label), str)


def _label(text: str) -> str | int:
    number = _NUMBER.fullmatch(text)
    # what has more digits is no class, and may be more than int() takes
    return text if number is None else int(number[1][:_DIGITS])


def _checked(pairs: Collection[Sequence[Any]], name: str) -> dict[str, int | str]:
    if not pairs:
        raise _unusable(name, "it names no image")
    labels: dict[str, int | str] = {}
    for path, label in pairs:
        if not isinstance(path, str) or type(label) not in (int, str):
            raise _unusable(name, f"{printable(str([path, label])[:60])} is not a path and a class")
        if isinstance(label, int) and not 0 <= label < _MOST_CLASSES:
            raise _unusable(name, f"class {label} of {printable(path)}; 0 to {_MOST_CLASSES - 1} are meant")
        if labels.setdefault(path, label) != label:
            raise _unusable(name, f"{printable(path)} has two classes")
    _require_one_kind(labels, name)
    if len(set(labels.values())) > _MOST_CLASSES:
        raise _unusable(name, f"it has more than {_MOST_CLASSES} classes")
    return labels


def _require_one_kind(labels: dict[str, int | str], name: str) -> None:
    """CorruptError for numbers among names, of which one or the other would lose their meaning."""
    first = {type(label): (path, label) for path, label in reversed(labels.items())}
    if len(first) > 1:
        examples = [f"{printable(str(label)[:40])} of {printable(path)}" for path, label in first.values()]
        raise _unusable(name, f"some classes are numbers, others are names: {' and '.join(examples)}")


def _unusable(name: str, problem: str) -> CorruptError:
    return CorruptError(f"{printable(name)} does not tell the classes", where=problem, remedy=_REMEDY)
