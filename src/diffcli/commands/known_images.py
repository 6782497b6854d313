"""Images that need not be drawn: other archives of the run, finished or not, hold the very same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffcli.commands.conditions import SampleConditions
from diffcli.commands.sampling_process import SamplingProcess
from diffcli.data.sources.npz_arrays import Npz
from diffcli.errors import CorruptError, StorageError
from diffcli.images.decode import printable
from diffcli.records.samples import SampleProvenance
from diffcli.registry.paths import RunPaths
from diffcli.registry.sample_records import (
    FoundArchive,
    archives_of,
    drawn_from_seed,
    fingerprint,
    images_key,
)
from diffcli.sampling.archive import ArchiveParts, Labels

_IMAGES, _LABELS = "arr_0", "arr_1"


@dataclass(frozen=True, kw_only=True)
class KnownImages:
    """What is known of the images of a request before the first is drawn."""

    run: RunPaths
    provenance: SampleProvenance
    conditions: SampleConditions
    process: SamplingProcess

    def fill(self, parts: ArchiveParts) -> int:
        """Put into the missing parts what is known of them, in the first process; how many images.

        A batch that an archive ends within is drawn anew.
        """
        taken = 0
        for archive in self._archives():
            if parts.missing() and self._same(archive):
                taken += self._told(self._from_archive(archive, parts), archive.directory, parts)
        for directory in sorted(self.run.samples.glob(".*.parts")):
            if directory != parts.directory and parts.missing():
                taken += self._told(parts.take_from(directory), directory, parts)
        return taken

    def _archives(self) -> list[FoundArchive]:
        """Those first that hold most of what is asked for, and of these the smallest."""
        asked = self.provenance.count
        return sorted(archives_of(self.run), key=lambda archive: (-min(archive.count, asked), archive.count))

    def _same(self, archive: FoundArchive) -> bool:
        """Whether image i of an archive is image i of the request, as far as both go."""
        wanted, found = self.provenance, archive.provenance
        if drawn_from_seed(wanted):
            return archive.images_key == images_key(wanted)
        if wanted.start is not None or found.count > wanted.count:
            return False
        # before the digests of its first images, which take a while
        if fingerprint(_told_alike(found, wanted)) != fingerprint(wanted):
            return False
        first = self.conditions.first(found.count)
        told = (first.classes_sha256, None if first.low_res is None else first.low_res.sha256)
        return told == (found.classes_sha256, found.low_res_sha256)

    def _told(self, images: int, where: Path, parts: ArchiveParts) -> int:
        if images:
            self.process.tell(f"{images} of {parts.plan.count} images are taken from {printable(where)}")
        return images

    def _from_archive(self, archive: FoundArchive, parts: ArchiveParts) -> int:
        """Copy the batches that an archive holds as a whole, after a look at all of it."""
        plan = parts.plan
        whole = frozenset(batch for batch in parts.missing() if plan.images(batch).stop <= archive.count)
        if not whole:
            return 0
        try:
            file = archive.archive.open("rb")
        except OSError as error:
            return self._passed_over(printable(str(error)))
        with file:
            try:
                npz = Npz(file, archive.archive)
                self._check(npz, archive, plan.item_shape)
            except (CorruptError, StorageError) as error:
                return self._passed_over(error.what)
            rows = npz.rows(_IMAGES, plan.batch_size)
            for batch, images in zip(range(max(whole) + 1), rows, strict=False):
                if batch in whole:
                    parts.write(batch, images)
        return sum(len(plan.images(batch)) for batch in whole)

    def _passed_over(self, problem: str) -> int:
        self.process.tell(f"warning: {problem}; its images are drawn anew")
        return 0

    def _check(self, npz: Npz, archive: FoundArchive, item_shape: tuple[int, ...]) -> None:
        """CorruptError unless it holds what its record says, and labels that are those asked for."""
        kind = npz.kind(_IMAGES)
        if kind.dtype != np.uint8 or kind.shape != (archive.count, *item_shape):
            raise CorruptError(f"{printable(npz.location)} holds {kind.dtype} {list(kind.shape)}")
        _read_through(npz.blocks(_IMAGES))
        found = npz.array(_LABELS) if _LABELS in npz.names else None
        if not _same_start(found, self.conditions.kept_labels):
            raise CorruptError(f"{printable(npz.location)} has other classes than its record says")


def _told_alike(one: SampleProvenance, other: SampleProvenance) -> SampleProvenance:
    """The same, but for how many images there are, and the digests of what they are told."""
    return dataclasses.replace(
        one,
        count=other.count,
        classes_sha256=other.classes_sha256,
        low_res_sha256=other.low_res_sha256,
    )


def _same_start(found: npt.NDArray[Any] | None, wanted: Labels | None) -> bool:
    """Whether two lists of labels agree as far as both go."""
    if found is None or wanted is None:
        return found is wanted
    both = min(len(found), len(wanted))
    return bool(np.array_equal(found[:both], wanted[:both]))


def _read_through(blocks: Iterator[bytes]) -> None:
    """Come to the end, where the checksum is compared."""
    for _ in blocks:
        pass
