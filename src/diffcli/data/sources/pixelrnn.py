"""ImageNet 64x64 as the PixelRNN paper (van den Oord et al. 2016) made it: PNG files without classes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from diffcli.data.downloads.remote_file import RemoteFile
from diffcli.data.sources.listed_images import ListedSource, list_images_of
from diffcli.data.sources.published import AnnouncedSplit, check_published, count_difference, split_rule
from diffcli.data.sources.source import Origin, ReferenceNames, SourceFacts
from diffcli.records.datasets import PrepareProgress, no_progress

COUNTS = {"train": 1_281_149, "val": 49_999}
_OTHERWISE = (
    "the torrent 96816a530ee002254d29bf7a61c0c158d3dedc3b has the files: give them with --train and --val, "
    "or a mirror with --url"
)
# their own links are dead, so a mirror must be given
ARCHIVES = {
    "train": RemoteFile(
        url="http://image-net.org/small/train_64x64.tar",
        name="train_64x64.tar",
        size_bytes=12_112_588_800,
        sha256="e2a2c1947a748d0d256e98e6d82800d855441dc9e4de2e71a773f1324c4524d7",
        otherwise=_OTHERWISE,
    ),
    "val": RemoteFile(
        url="http://image-net.org/small/valid_64x64.tar",
        name="valid_64x64.tar",
        size_bytes=477_255_680,
        sha256="eeac03ec4f585baf871d2b4cb9c974bfe345e74878a74e5820fe6eb1041629cd",
        otherwise=_OTHERWISE,
    ),
}


@contextlib.contextmanager
def open_pixelrnn(
    split: str, location: Path, *, allow_partial: bool, progress: PrepareProgress = no_progress
) -> Iterator[ListedSource]:
    """A split from train_64x64.tar or valid_64x64.tar, or from its directory; progress: of listing it.

    Errors: those of `list_images_of`; CorruptError for another count than the published, unless allowed.
    """
    remedy = f"give {ARCHIVES[split].name}, or the directory of it"
    with list_images_of(location, remedy=remedy, progress=progress) as images:
        count = len(images.names)
        differences = count_difference(split, count, COUNTS[split])
        check_published(
            "ImageNet 64x64 of PixelRNN", location, differences, allow_partial=allow_partial, remedy=remedy
        )
        digests = (ARCHIVES[split].sha256,) if location.is_file() else ()
        facts = dataclasses.replace(_facts(split, count), published_digests=digests)
        yield ListedSource(images, facts, None)


def announced_pixelrnn(split: str, read_origin: Callable[[PrepareProgress], Origin]) -> AnnouncedSplit:
    """The published split, before it is opened."""
    count = COUNTS[split]
    return AnnouncedSplit(facts=_facts(split, count), count=count, read_origin=read_origin)


def _facts(split: str, count: int) -> SourceFacts:
    return SourceFacts(
        split=split,
        split_rule=split_rule(split, count, COUNTS[split]),
        label_source="none",
        variant="pixelrnn",
        reference_names=ReferenceNames(digits=7),
    )
