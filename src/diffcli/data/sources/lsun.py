"""LSUN (Yu et al. 2015): encoded images in an LMDB, from the published zips or from their directories."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcli.data.downloads.remote_file import RemoteFile
from diffcli.data.sources.published import AnnouncedSplit, check_published, count_difference, split_rule
from diffcli.data.sources.source import (
    Origin,
    ReferenceNames,
    SourceFacts,
    files_origin,
    places_identity,
)
from diffcli.errors import CorruptError, MissingError, UsageError
from diffcli.images.decode import decoded_content, printable
from diffcli.records.datasets import PrepareProgress, no_progress

if TYPE_CHECKING:
    import lmdb

Category = Literal["bedroom", "church_outdoor", "cat", "horse"]
Split = Literal["train", "val"]
DATA_FILE = "data.mdb"
BASE_URL = "http://dl.yf.io/lsun"
_OTHERWISE = "give a mirror of http://dl.yf.io/lsun with --url, or a zip or directory with --train and --val"
_REMEDY = "give the zip as it was published, its directory, or data.mdb"
_KEY_BYTES = 40
_LEAK = "-- a leak"


@dataclass(frozen=True, kw_only=True)
class PublishedSplit:
    """The zip of a split, with its place below the base URL in `file.url`, and the images in it."""

    file: RemoteFile
    count: int


def _published(path: str, size_bytes: int, sha256: str, count: int) -> PublishedSplit:
    name = path.rpartition("/")[2]
    file = RemoteFile(
        url=f"{BASE_URL}/{path}", name=name, size_bytes=size_bytes, sha256=sha256, otherwise=_OTHERWISE
    )
    return PublishedSplit(file=file, count=count)


PUBLISHED: dict[tuple[Category, Split], PublishedSplit] = {
    ("bedroom", "train"): _published(
        "scenes/bedroom_train_lmdb.zip",
        45_922_737_680,
        "a15644c2e7153106867f0adb3491fc41224102d1f01b24494fb47d9f5d1f174e",
        3_033_042,
    ),
    ("bedroom", "val"): _published(
        "scenes/bedroom_val_lmdb.zip",
        4_670_661,
        "5d022e781b241c25ec2e1f1f769afcdb8091d7fd58362667aec03137b8114b12",
        300,
    ),
    ("church_outdoor", "train"): _published(
        "scenes/church_outdoor_train_lmdb.zip",
        2_448_463_466,
        "91128ae026840ac0c5982b4445ab5fc4e092d6847cca76793b2b1a0815c2e74a",
        126_227,
    ),
    ("church_outdoor", "val"): _published(
        "scenes/church_outdoor_val_lmdb.zip",
        5_957_308,
        "34635b7547a3e51a15f942a4a4082dd6bc9cca381a953515cb2275c0eed50584",
        300,
    ),
    ("cat", "train"): _published(
        "objects/cat.zip",
        44_765_061_710,
        "cef7d1926d80f271ccfe2c55a610a1f9958eb2ac0bd188ddbe3cceb571eb9877",
        1_657_266,
    ),
    ("horse", "train"): _published(
        "objects/horse.zip",
        73_864_289_242,
        "2ec7893f3308da7f68cc2bdb1e9a75cde7abf842628feea1c49c30006e9c3a1b",
        2_000_340,
    ),
}


class LsunSource:
    """The records of one split in the order of their keys. Implements `ImageSource`."""

    def __init__(self, location: Path, file: Path, environment: lmdb.Environment, facts: SourceFacts) -> None:
        """location: what the user gave; file: what of it is read; facts: what is known of the split."""
        self.location = location
        self.facts = facts
        self.labels = None
        self._file = file
        self._environment = environment
        self._keys = _keys(location, environment)
        self.count = len(self._keys)

    def name(self, index: int) -> str:
        """As `ImageSource`: the key."""
        return f"record {printable(os.fsdecode(self._key(index)))}"

    def image(self, index: int) -> Image.Image:
        """As `ImageSource`."""
        return decoded_content(self.encoded(index), self.name(index))

    def encoded(self, index: int) -> bytes:
        """As `ImageSource`."""
        with self._environment.begin() as transaction:
            content = transaction.get(self._key(index))
        if content is None:
            raise CorruptError("no longer there", where=self.name(index))
        return content

    def identity(self) -> str:
        """As `ImageSource`."""
        return places_identity([self._file], self.count)

    def origin(self, progress: PrepareProgress = no_progress) -> Origin:
        """As `ImageSource`."""
        return files_origin(self.location, [self._file], progress)

    def _key(self, index: int) -> bytes:
        return bytes(self._keys[index])


@contextlib.contextmanager
def open_lsun(
    category: Category, split: Split, location: Path, data_file: Path, *, allow_partial: bool
) -> Iterator[LsunSource]:
    """A split from an LMDB, read without a lock and without writing.

    location: what the user gave, for messages and the record; data_file: the data.mdb in it. It is verified
    as a whole before the database library trusts it. Errors: UsageError without that library, MissingError,
    CorruptError when it is damaged, or has another count than the published, unless allowed.
    """
    require_library()
    import lmdb

    _verify(location, data_file)
    published = PUBLISHED[category, split].count
    zipped = location.is_file() and not location.samefile(data_file)
    try:
        # the file alone is given, so that no lock.mdb is looked for
        environment = lmdb.open(
            str(data_file), subdir=False, readonly=True, lock=False, readahead=False, max_readers=1
        )
    except lmdb.Error as error:
        raise _damaged(location, str(error)) from error
    with environment:
        count = environment.stat()["entries"]
        differences = count_difference(split, count, published)
        check_published(
            f"LSUN {category}", location, differences, allow_partial=allow_partial, remedy=_REMEDY
        )
        digests = (PUBLISHED[category, split].file.sha256,) if zipped else ()
        facts = dataclasses.replace(_facts(category, split, count), published_digests=digests)
        yield LsunSource(location, location if zipped else data_file, environment, facts)


def announced_lsun(
    category: Category, split: Split, read_origin: Callable[[PrepareProgress], Origin]
) -> AnnouncedSplit:
    """The published split, before it is opened."""
    count = PUBLISHED[category, split].count
    return AnnouncedSplit(facts=_facts(category, split, count), count=count, read_origin=read_origin)


def find_data_file(location: Path) -> Path | None:
    """The data.mdb of a directory or the file itself; None for another file, which may be a zip of it.

    MissingError when there is none.
    """
    if location.is_dir():
        candidates = [location / DATA_FILE, *sorted(location.glob(f"*/{DATA_FILE}"))]
        found = [path for path in candidates if path.is_file()]
        if len(found) != 1:
            raise MissingError(
                f"{printable(location)} holds {len(found) or 'no'} {DATA_FILE}", remedy=_REMEDY
            )
        return found[0]
    return location if location.name == DATA_FILE else None


def lsun_origin(location: Path, progress: PrepareProgress = no_progress) -> Origin:
    """The origin of what would be read of a location, which need not be opened for that."""
    return files_origin(location, [find_data_file(location) or location], progress)


def require_split(category: Category, split: Split) -> None:
    """UsageError when the category was published without that split."""
    if (category, split) not in PUBLISHED:
        raise UsageError(
            f"LSUN {category} has no split {split}",
            where=f"--{split}; it was published as one file of {PUBLISHED[category, 'train'].count:,} images",
            remedy=f"leave --{split} out",
        )


def require_library() -> None:
    """UsageError when lmdb is not installed."""
    try:
        import lmdb.verify  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "reading LSUN takes lmdb, which is not installed",
            where="its images lie in a database of that kind",
            remedy="pip install 'diffcli[lsun]'",
        ) from error


def _verify(location: Path, data_file: Path) -> None:
    """CorruptError unless all pages in use are sound: a damaged one, once mapped, could end the process."""
    from lmdb.verify import verify

    try:
        found: list[str] = verify(str(data_file), subdir=False)  # type: ignore[no-untyped-call]
    except Exception as error:  # of a hostile file it raises whatever it stumbles on
        raise _damaged(location, str(error)) from error
    # pages that nobody uses harm no reader
    problems = [problem for problem in found if _LEAK not in problem]
    if problems:
        raise _damaged(location, problems[0])


def _facts(category: Category, split: Split, count: int) -> SourceFacts:
    return SourceFacts(
        split=split,
        split_rule=split_rule(split, count, PUBLISHED[category, split].count),
        label_source="none",
        variant=category,
        reference_names=ReferenceNames(prefix=category, digits=7),
    )


def _keys(location: Path, environment: lmdb.Environment) -> NDArray[np.bytes_]:
    """All keys, bytes [N], in their order."""
    count = environment.stat()["entries"]
    if count == 0:
        raise MissingError(f"{printable(location)} holds no records", remedy=_REMEDY)
    with environment.begin() as transaction:
        found = (_short(key, location) for key in transaction.cursor().iternext(values=False))
        return np.fromiter(found, dtype=f"S{_KEY_BYTES}", count=count)


def _short(key: bytes, location: Path) -> bytes:
    if len(key) > _KEY_BYTES or key.endswith(b"\0"):
        raise _damaged(location, f"a key of {len(key)} bytes is none of LSUN")
    return key


def _damaged(location: Path, problem: str) -> CorruptError:
    return CorruptError(
        f"{printable(location)} is damaged, or no LMDB of LSUN",
        where=printable(problem.partition("\n")[0][:100]),
        remedy=_REMEDY,
    )
