"""ImageNet 64x64 as Chrabaszcz et al. (2017) made it: npz files of pixels and labels, with classes."""

from __future__ import annotations

import contextlib
import dataclasses
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
from diffcli.data.sources.published import AnnouncedSplit, check_published, count_difference, split_rule
from diffcli.data.sources.source import (
    Origin,
    ReferenceNames,
    SourceFacts,
    files_origin,
    places_identity,
)
from diffcli.data.sources.wordnet_ids import CLASSES, numbered
from diffcli.durable import require_space, storage_errors
from diffcli.errors import CorruptError, MissingError
from diffcli.images.decode import printable
from diffcli.records.datasets import PrepareProgress, no_progress

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
GIVE_ZIPS = "give the zips Imagenet64_..._npz.zip, or the npz files in them"


@dataclass(frozen=True, kw_only=True)
class _Place:
    """An npz file, alone, where member is "", or as a member of a zip."""

    location: Path
    member: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class _Part:
    """An npz file; ids: of the class of each image."""

    name: str
    place: _Place
    ids: NDArray[np.bytes_]


class ChrabaszczSource:
    """One split of it. Implements `ImageSource`."""

    def __init__(self, split: str, parts: Sequence[_Part], classes: Sequence[str], scratch: Path) -> None:
        places = [part.place for part in parts]
        self.location = places[0].location
        ids = np.concatenate([part.ids for part in parts])
        self.labels: NDArray[np.int64] = numbered(ids, [name.encode() for name in classes])
        self.count = len(ids)
        of_one_zip = all(place.member for place in places) and len(_locations(places)) == 1
        digests = (_VAL_ZIP_SHA256,) if of_one_zip and split == "val" else ()
        self.facts = dataclasses.replace(_facts(split, self.count, classes), published_digests=digests)
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
        return places_identity(_locations([part.place for part in self._parts]), self.facts)

    def origin(self, progress: PrepareProgress = no_progress) -> Origin:
        """As `ImageSource`; of several files the place of the first."""
        locations = _locations([part.place for part in self._parts])
        return files_origin(locations[0], locations, progress)

    def _place(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, index - int(self._starts[number])

    def _rows(self, number: int) -> UnpackedRows:
        """A part's pixels; those of a part that is dropped go when the last thread is done with them."""
        if number not in self._unpacked:
            while len(self._unpacked) >= _PARTS_UNPACKED:
                del self._unpacked[min(self._unpacked)]
            part = self._parts[number]
            with _opened(part.place, self._scratch, no_progress) as npz:
                self._unpacked[number] = UnpackedRows(npz, "data", _IMAGE_BYTES, self._scratch)
        return self._unpacked[number]


@dataclass(frozen=True, kw_only=True)
class GivenFiles:
    """What the user gave for a split: the published zips, the npz files in them, or directories of either.

    class_map: the WordNet id of each number that stands for a class in the files; scratch: a directory with
    room for two unpacked parts.
    """

    split: str
    locations: Sequence[Path]
    class_map: Mapping[int, str]
    scratch: Path

    def places(self) -> dict[str, _Place]:
        """Of the parts that are there, in the order of the images; MissingError when there is none."""
        there = _members(self.locations, PARTS[self.split], self.scratch)
        if not there:
            raise MissingError(
                f"{printable(self.locations[0])} holds nothing of the {self.split} split",
                where=f"looked for {PARTS[self.split][0]}",
                remedy=GIVE_ZIPS,
            )
        return {name: there[name] for name in PARTS[self.split] if name in there}


def announced_chrabaszcz(given: GivenFiles) -> AnnouncedSplit:
    """The published split, before its files are unpacked; MissingError, and those of `open_archive`."""
    locations = _locations(list(given.places().values()))
    count = COUNTS[given.split]
    return AnnouncedSplit(
        facts=_facts(given.split, count, sorted(given.class_map.values())),
        count=count,
        read_origin=lambda progress: files_origin(locations[0], locations, progress),
    )


def open_chrabaszcz(
    given: GivenFiles, *, allow_partial: bool, progress: PrepareProgress = no_progress
) -> ChrabaszczSource:
    """A split with the labels of all its images; progress: of unpacking the parts for these, bytes.

    Errors: MissingError, StorageError, CorruptError for what is damaged, or differs from the published,
    unless allowed.
    """
    split, class_map, there = given.split, given.class_map, given.places()
    total_bytes = sum(place.size_bytes for place in there.values())
    parts: list[_Part] = []
    for name, place in there.items():
        before = sum(part.place.size_bytes for part in parts)
        parts.append(_part(name, place, given, _behind(before, total_bytes, progress)))
    differences = [f"{name} is missing" for name in PARTS[split] if name not in there]
    differences += count_difference(split, sum(len(part.ids) for part in parts), COUNTS[split])
    if len(class_map) != CLASSES:
        differences.append(f"the class map has {len(class_map)} classes in place of {CLASSES}")
    check_published(
        "ImageNet 64x64 of Chrabaszcz et al.",
        given.locations[0],
        differences,
        allow_partial=allow_partial,
        remedy=GIVE_ZIPS,
    )
    return ChrabaszczSource(split, parts, sorted(class_map.values()), given.scratch)


def _behind(before: int, total: int, progress: PrepareProgress) -> PrepareProgress:
    """Tells the bytes of one part as those of all."""
    return lambda done, _total: progress(before + done, total)


def _facts(split: str, count: int, classes: Sequence[str]) -> SourceFacts:
    return SourceFacts(
        split=split,
        split_rule=split_rule(split, count, COUNTS[split]),
        label_source="source",
        class_names=tuple(classes),
        variant="chrabaszcz",
        reference_names=ReferenceNames(digits=7),
    )


def _locations(places: Sequence[_Place]) -> list[Path]:
    """The files that hold these, each once."""
    return list(dict.fromkeys(place.location for place in places))


def _members(locations: Sequence[Path], names: Sequence[str], scratch: Path) -> dict[str, _Place]:
    """Where each npz file of these names is."""
    found = {}
    for file in (file for location in locations for file in _files(location)):
        if file.name in names:
            found[file.name] = _Place(location=file, member="", size_bytes=file.stat().st_size)
        elif file.suffix == ".zip":
            with open_archive(file, scratch=scratch, limits=_LIMITS) as archive:
                for member, size_bytes in archive.sizes_bytes.items():
                    base = member.rpartition("/")[2]
                    if base in names:
                        found[base] = _Place(location=file, member=member, size_bytes=size_bytes)
    return found


def _files(location: Path) -> list[Path]:
    require_there(location, GIVE_ZIPS)
    if not location.is_dir():
        return [location]
    # other zips of a download directory are not opened
    return sorted(path for path in location.iterdir() if path.suffix == ".npz" or _ZIPS.fullmatch(path.name))


@contextlib.contextmanager
def _opened(place: _Place, scratch: Path, progress: PrepareProgress) -> Iterator[Npz]:
    """An npz file, unpacked to a file without a name when it is in a zip."""
    location, member = place.location, place.member
    if not member:
        with opened(location) as file:
            yield Npz(file, location)
        return
    done = 0
    with contextlib.ExitStack() as stack:
        with storage_errors(scratch):
            file = stack.enter_context(tempfile.TemporaryFile(dir=scratch))
        archive = stack.enter_context(open_archive(location, scratch=scratch, limits=_LIMITS))
        require_space(scratch, place.size_bytes)
        for block in archive.blocks(member):
            with storage_errors(scratch):
                file.write(block)
            done += len(block)
            progress(done, place.size_bytes)
        with storage_errors(scratch):
            file.flush()
        yield Npz(file, location)


def _part(name: str, place: _Place, given: GivenFiles, progress: PrepareProgress) -> _Part:
    class_map = given.class_map
    with _opened(place, given.scratch, progress) as npz:
        labels = npz.array("labels")
        pixels = npz.kind("data")
    whole = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer) and len(labels) > 0
    if not whole or pixels.dtype != np.uint8 or pixels.shape != (len(labels), _IMAGE_BYTES):
        told = f"data of {pixels.dtype} {pixels.shape}, labels of {labels.dtype} {labels.shape}"
        raise CorruptError(f"{printable(name)} is no part of ImageNet 64x64", where=told, remedy=GIVE_ZIPS)
    unknown = sorted(set(labels.tolist()) - set(class_map))
    if unknown:
        raise CorruptError(
            f"{printable(name)} has a label {unknown[0]} that the class map does not know",
            remedy="give the class map of the same dataset with --class-map",
        )
    of_label = np.zeros(max(class_map) + 1, dtype="S9")
    for number, wordnet_id in class_map.items():
        of_label[number] = wordnet_id.encode()
    return _Part(name=name, place=place, ids=of_label[labels])
