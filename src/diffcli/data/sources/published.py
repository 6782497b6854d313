"""What is known of the datasets of the papers, held against what is there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffcli.data.downloads.remote_file import RemoteFile
from diffcli.data.sources.source import Origin, SourceFacts
from diffcli.errors import CorruptError
from diffcli.images.decode import printable
from diffcli.records.datasets import PrepareProgress, no_progress

_SHOWN = 5
_MD5_LETTERS = 32


@dataclass(frozen=True, kw_only=True)
class AnnouncedSplit:
    """A published split before its files are opened, or even fetched. Implements `Announced`.

    read_origin: of the files that would be read; tells the bytes.
    """

    facts: SourceFacts
    count: int
    read_origin: Callable[[PrepareProgress], Origin]

    def origin(self, progress: PrepareProgress = no_progress) -> Origin:
        """As `Announced`."""
        return self.read_origin(progress)


def published_origin(file: RemoteFile, place: Path) -> Origin:
    """The origin of a published file that has this place once it is fetched."""
    return Origin(url=place.resolve().as_uri(), size_bytes=file.size_bytes, sha256=file.sha256)


def check_published(
    name: str, location: Path, differences: Sequence[str], *, allow_partial: bool, remedy: str
) -> None:
    """CorruptError that names the differences from the published dataset, unless they are allowed."""
    if not differences or allow_partial:
        return
    more = [f"and {len(differences) - _SHOWN} more"] if len(differences) > _SHOWN else []
    raise CorruptError(
        f"{printable(location)} is not the published {name}",
        where="\n".join([*differences[:_SHOWN], *more]),
        remedy=f"{remedy}; --allow-partial takes it as it is",
    )


def compared_with_published(location: Path, found_sha256: str, published: Sequence[str]) -> str:
    """A sentence on whether a file is the one that was published; "" when nothing is known to compare.

    found_sha256: of that file; published: SHA-256 or MD5 of the files any of which it may be.
    """
    if not published or not found_sha256:
        return ""
    name = printable(location.name)
    if found_sha256 in published:
        return f"{name} is the published file, by its SHA-256"
    if any(len(digest) == _MD5_LETTERS for digest in published):
        with location.open("rb") as file:
            found_md5 = hashlib.file_digest(file, _md5).hexdigest()
        if found_md5 in published:
            return f"{name} is the published file, by its MD5"
    return f"{name} is another file than the published one, by its SHA-256; its images may be the same"


def _md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)


def count_difference(split: str, found: int, published: int) -> list[str]:
    """A sentence when a split has another number of images than the published one."""
    if found == published:
        return []
    return [f"{split} has {found:,} images, the published one {published:,}"]


def split_rule(split: str, found: int, published: int) -> str:
    """What dataset.json tells of a split."""
    if found == published:
        return published_rule(split)
    return f"{found} images, where the published {split} split has {published} (--allow-partial)"


def published_rule(split: str) -> str:
    """The same of a split as it was published."""
    return f"the published {split} split"
