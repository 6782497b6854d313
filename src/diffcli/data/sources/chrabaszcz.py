"""ImageNet 64x64 as Chrabaszcz et al. (2017) made it: npz files of pixels and labels, with classes."""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcli.data.sources.archives import Limits, open_archive, opened
from diffcli.data.sources.named_files import require_there
from diffcli.data.sources.npz_arrays import Npz, UnpackedRows
from diffcli.data.sources.published import check_published, count_difference, split_rule
from diffcli.data.sources.source import (
    Origin,
    ReferenceNames,
    SourceFacts,
    file_origin,
    places_identity,
)
from diffcli.data.sources.wordnet_ids import CLASSES, numbered
from diffcli.durable import require_space, storage_errors
from diffcli.errors import CorruptError, MissingError
from diffcli.images.decode import printable

COUNTS = {"train": 1_281_167, "val": 50_000}
PARTS = {
    "train": tuple(f"train_data_batch_{number}.npz" for number in range(1, 11)),
    "val": ("val_data.npz",),
}
_VAL_ZIP_SHA256 = "e1e75133158a1924135a9c6f97a80d2d237b158945e0b34074e58e6c8430eeb8"
_ZIPS = re.compile(r"Imagenet64_(train_part\d|val)_npz\.zip")
_SIDE, _CHANNELS = 64, 3
_IMAGE_BYTES = _CHANNELS * _SIDE * _SIDE
_LIMITS = Limits(member_bytes=4 * 2**30)
# two, since images on both sides of a part's end are decoded at once
_PARTS_UNPACKED = 2
_REMEDY = "give the zips Imagenet64_..._npz.zip, or the npz files in them"


@dataclass(frozen=True, kw_only=True)
class _Part:
    """An npz file, alone or as a member of a zip; ids: of the class of each image."""

    name: str
    location: Path
    member: str
    ids: NDArray[np.bytes_]


class ChrabaszczSource:
    """One split of it. Implements `ImageSource`."""

    def __init__(self, split: str, parts: Sequence[_Part], classes: Sequence[str], scratch: Path) -> None:
        locations = {part.location for part in parts}
        self.location = parts[0].location
        ids = np.concatenate([part.ids for part in parts])
        self.labels: NDArray[np.int64] = numbered(ids, [name.encode() for name in classes])
        self.count = len(ids)
        of_one_file = all(part.location.suffix == ".zip" for part in parts) and len(locations) == 1
        self.facts = SourceFacts(
            split=split,
            split_rule=split_rule(split, self.count, COUNTS[split]),
            label_source="source",
            class_names=tuple(classes),
            variant="chrabaszcz",
            published_digests=(_VAL_ZIP_SHA256,) if of_one_file and split == "val" else (),
            reference_names=ReferenceNames(digits=7),
        )
        self._parts = parts
        self._scratch = scratch
        self._starts = np.cumsum([0, *(len(part.ids) for part in parts)])
        self._unpacked: dict[int, UnpackedRows] = {}
        self._lock = threading.Lock()

    def name(self, index: int) -> str:
        """As `ImageSource`."""
        number, row = self._place(index)
        return f"{self._parts[number].name}, row {row}"

    def image(self, index: int) -> Image.Image:
        """As `ImageSource`."""
        number, row = self._place(index)
        with self._lock:
            rows = self._rows(number)
        planes = np.frombuffer(rows.row(row), np.uint8).reshape(_CHANNELS, _SIDE, _SIDE)
        return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))

    def encoded(self, _index: int) -> None:
        """As `ImageSource`: there are no files."""

    def identity(self) -> str:
        """As `ImageSource`."""
        return places_identity(list(dict.fromkeys(part.location for part in self._parts)), self.facts)

    def origin(self) -> Origin:
        """As `ImageSource`; of several files the place of the first and the bytes of all."""
        locations = list(dict.fromkeys(part.location for part in self._parts))
        if len(locations) == 1:
            return file_origin(locations[0])
        size_bytes = sum(location.stat().st_size for location in locations)
        return Origin(url=locations[0].resolve().as_uri(), size_bytes=size_bytes)

    def _place(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, index - int(self._starts[number])

    def _rows(self, number: int) -> UnpackedRows:
        """A part's pixels; those of a part that is dropped go when the last thread is done with them."""
        if number not in self._unpacked:
            while len(self._unpacked) >= _PARTS_UNPACKED:
                del self._unpacked[min(self._unpacked)]
            part = self._parts[number]
            with _opened(part.location, part.member, self._scratch) as npz:
                self._unpacked[number] = UnpackedRows(npz, "data", _IMAGE_BYTES, self._scratch)
        return self._unpacked[number]


def open_chrabaszcz(
    split: str, locations: Sequence[Path], class_map: Mapping[int, str], *, scratch: Path, allow_partial: bool
) -> ChrabaszczSource:
    """A split from the published zips, the npz files in them, or directories of either.

    class_map: the WordNet id of each number that stands for a class in the files; scratch: a directory with
    room for two unpacked parts. Errors: MissingError, StorageError, CorruptError for what is damaged, or
    differs from the published, unless allowed.
    """
    there = _members(locations, PARTS[split], scratch)
    if not there:
        raise MissingError(
            f"{printable(locations[0])} holds nothing of the {split} split",
            where=f"looked for {PARTS[split][0]}",
            remedy=_REMEDY,
        )
    parts = [_part(name, there[name], class_map, scratch) for name in PARTS[split] if name in there]
    differences = [f"{name} is missing" for name in PARTS[split] if name not in there]
    differences += count_difference(split, sum(len(part.ids) for part in parts), COUNTS[split])
    if len(class_map) != CLASSES:
        differences.append(f"the class map has {len(class_map)} classes in place of {CLASSES}")
    check_published(
        "ImageNet 64x64 of Chrabaszcz et al.",
        locations[0],
        differences,
        allow_partial=allow_partial,
        remedy=_REMEDY,
    )
    return ChrabaszczSource(split, parts, sorted(class_map.values()), scratch)


def _members(locations: Sequence[Path], names: Sequence[str], scratch: Path) -> dict[str, tuple[Path, str]]:
    """Where each npz file of these names is: the file that holds it, and its name in there."""
    found = {}
    for file in (file for location in locations for file in _files(location)):
        if file.name in names:
            found[file.name] = (file, "")
        elif file.suffix == ".zip":
            with open_archive(file, scratch=scratch, limits=_LIMITS) as archive:
                for member in archive.sizes_bytes:
                    base = member.rpartition("/")[2]
                    if base in names:
                        found[base] = (file, member)
    return found


def _files(location: Path) -> list[Path]:
    require_there(location, _REMEDY)
    if not location.is_dir():
        return [location]
    # other zips of a download directory are not opened
    return sorted(path for path in location.iterdir() if path.suffix == ".npz" or _ZIPS.fullmatch(path.name))


@contextlib.contextmanager
def _opened(location: Path, member: str, scratch: Path) -> Iterator[Npz]:
    """An npz file, unpacked to a file without a name when it is in a zip."""
    if not member:
        with opened(location) as file:
            yield Npz(file, location)
        return
    with contextlib.ExitStack() as stack:
        with storage_errors(scratch):
            file = stack.enter_context(tempfile.TemporaryFile(dir=scratch))
        archive = stack.enter_context(open_archive(location, scratch=scratch, limits=_LIMITS))
        require_space(scratch, archive.sizes_bytes[member])
        for block in archive.blocks(member):
            with storage_errors(scratch):
                file.write(block)
        with storage_errors(scratch):
            file.flush()
        yield Npz(file, location)


def _part(name: str, place: tuple[Path, str], class_map: Mapping[int, str], scratch: Path) -> _Part:
    location, member = place
    with _opened(location, member, scratch) as npz:
        labels = npz.array("labels")
        pixels = npz.kind("data")
    whole = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer) and len(labels) > 0
    if not whole or pixels.dtype != np.uint8 or pixels.shape != (len(labels), _IMAGE_BYTES):
        told = f"data of {pixels.dtype} {pixels.shape}, labels of {labels.dtype} {labels.shape}"
        raise CorruptError(f"{printable(name)} is no part of ImageNet 64x64", where=told, remedy=_REMEDY)
    unknown = sorted(set(labels.tolist()) - set(class_map))
    if unknown:
        raise CorruptError(
            f"{printable(name)} has a label {unknown[0]} that the class map does not know",
            remedy="give the class map of the same dataset with --class-map",
        )
    of_label = np.zeros(max(class_map) + 1, dtype="S9")
    for number, wordnet_id in class_map.items():
        of_label[number] = wordnet_id.encode()
    return _Part(name=name, location=location, member=member, ids=of_label[labels])
