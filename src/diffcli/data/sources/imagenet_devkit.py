"""The classes of the ImageNet validation images, from the development kit of ILSVRC 2012."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from diffcli.data.sources.named_files import NamedFiles, by_base_name, open_files
from diffcli.data.sources.wordnet_ids import is_wordnet_id
from diffcli.errors import CorruptError, MissingError, UsageError
from diffcli.images.decode import printable

_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_META = "meta.mat"
# the genuine one has a tenth of it; a compressed one may grow a thousandfold
_LARGEST_META_BYTES = 2**20
_LARGEST_TRUTH_BYTES = 2**22


def read_devkit(path: Path, *, scratch: Path) -> dict[int, str]:
    """The WordNet id of each validation image by its number, counted from 1.

    path: ILSVRC2012_devkit_t12.tar.gz or its directory. Errors: UsageError without scipy, MissingError,
    CorruptError, those of `open_archive`.
    """
    with open_files(path, scratch=scratch) as files:
        truth = _content(files, _TRUTH, _LARGEST_TRUTH_BYTES)
        meta = _content(files, _META, _LARGEST_META_BYTES)
    ids = _ids_by_number(path, meta)
    found = {}
    for number, line in enumerate(truth.decode("ascii", "replace").split(), start=1):
        if not line.isdecimal() or int(line) not in ids:
            raise _damaged(path, f"{_TRUTH}, line {number}: {line[:20]!r} is the number of no class")
        found[number] = ids[int(line)]
    return found


def _content(files: NamedFiles, base: str, most_bytes: int) -> bytes:
    name = by_base_name(files).get(base)
    if name is None:
        raise MissingError(
            f"{printable(files.location)} holds no {base}",
            remedy="give ILSVRC2012_devkit_t12.tar.gz, its directory, or Kaggle's LOC_val_solution.csv",
        )
    if files.sizes_bytes[name] > most_bytes:
        raise _damaged(files.location, f"{base} has {files.sizes_bytes[name]:,} bytes")
    return files.read(name)


def _ids_by_number(path: Path, meta: bytes) -> dict[int, str]:
    """The WordNet id of each class that has images, by the number that the ground truth gives it."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UsageError(
            "reading the devkit takes scipy, which is not installed",
            where="its meta.mat is a MATLAB file",
            remedy="pip install 'diffcli[imagenet]', or give Kaggle's LOC_val_solution.csv",
        ) from error
    try:
        found: Any = loadmat(io.BytesIO(meta), squeeze_me=True, variable_names=["synsets"])["synsets"]
        rows = [(int(row["ILSVRC2012_ID"]), str(row["WNID"]), int(row["num_children"])) for row in found]
    except Exception as error:  # a damaged file fails in any way
        raise _damaged(path, f"{_META} cannot be read") from error
    ids = {number: wordnet_id for number, wordnet_id, children in rows if children == 0}
    wrong = [wordnet_id for wordnet_id in ids.values() if not is_wordnet_id(wordnet_id)]
    if wrong:
        raise _damaged(path, f"{_META}: {wrong[0][:20]!r} is no WordNet id")
    return ids


def _damaged(path: Path, problem: str) -> CorruptError:
    return CorruptError(
        f"{printable(path)} is damaged, or no devkit of ILSVRC 2012",
        where=printable(problem),
        remedy="get the devkit once more, or give Kaggle's LOC_val_solution.csv",
    )
