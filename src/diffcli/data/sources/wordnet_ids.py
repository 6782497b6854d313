"""Classes of ImageNet by their WordNet ids, sorted, as the published checkpoints number them."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffcli.data.sources.named_files import read_small, require_there
from diffcli.errors import CorruptError
from diffcli.images.decode import printable

CLASSES = 1000
_WORDNET_ID = re.compile(r"n\d{8}")
_CLASS_NUMBER = re.compile(r"[1-9]\d{0,4}")
_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})")


def is_wordnet_id(text: str) -> bool:
    """Whether a text is such as n01440764."""
    return _WORDNET_ID.fullmatch(text) is not None


def numbered(ids: NDArray[np.bytes_], classes: Sequence[bytes]) -> NDArray[np.int64]:
    """The class number of each id: its place among the sorted classes, all of which must hold it."""
    return np.searchsorted(np.array(classes, dtype=ids.dtype), ids).astype(np.int64)


def read_class_map(path: Path) -> dict[int, str]:
    """The id of each number in map_clsloc.txt, whose lines are such as `n02119789 1 kit_fox`.

    Errors: MissingError, CorruptError when it is another file.
    """
    require_there(path, "give map_clsloc.txt of the ILSVRC devkit")
    classes: dict[int, str] = {}
    for number, line in enumerate(_text(path).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        usable = len(words) >= 2 and is_wordnet_id(words[0]) and _CLASS_NUMBER.fullmatch(words[1])
        if not usable or int(words[1]) in classes or words[0] in classes.values():
            raise _no_labels(path, f"line {number}: {line[:60]!r} is not such as 'n02119789 1 kit_fox'")
        classes[int(words[1])] = words[0]
    return classes


def read_solution(path: Path) -> dict[int, str]:
    """The id of each validation image by its number, from Kaggle's LOC_val_solution.csv.

    Its lines are such as `ILSVRC2012_val_00048981,n03995372 85 1 499 272`. Errors: MissingError,
    CorruptError.
    """
    require_there(path, "give LOC_val_solution.csv")
    found: dict[int, str] = {}
    for number, row in enumerate(csv.reader(_text(path).splitlines()), start=1):
        image = _VALIDATION_NAME.fullmatch(row[0]) if len(row) == 2 else None
        if image is not None and is_wordnet_id(row[1].partition(" ")[0]):
            found[int(image[1])] = row[1].partition(" ")[0]
        elif number > 1:
            told = "ILSVRC2012_val_00000001,n01751748 1 2 3 4"
            raise _no_labels(path, f"line {number} is not such as {told!r}")
    return found


def validation_number(name: str) -> int | None:
    """The number in the name of a validation image, such as 1 in ILSVRC2012_val_00000001.JPEG."""
    found = _VALIDATION_NAME.match(name)
    return int(found[1]) if found else None


def _text(path: Path) -> str:
    try:
        return read_small(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _no_labels(path, "it is no text") from error


def _no_labels(path: Path, problem: str) -> CorruptError:
    return CorruptError(
        f"{printable(path)} does not tell classes", where=printable(problem), remedy="give the file as it was"
    )
