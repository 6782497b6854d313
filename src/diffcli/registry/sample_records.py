"""sample.json: the digests that tell requests for samples apart, and the finished archives of a run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from diffcli import durable
from diffcli.errors import DiffcliError
from diffcli.records.samples import SAMPLE_RECORD_FILE, SampleProvenance
from diffcli.registry.ids import entry_names
from diffcli.registry.json_records import decode, encode, read_record
from diffcli.registry.paths import RunPaths

SAMPLE_SCHEMA = 1
# of what a record says, these are the ones that change no bit of any image
_WITHOUT_EFFECT = (
    "low_res_origin",
    "world_size",
    "git_commit",
    "python",
    "platform",
    "command_line",
    "created_at",
    "seconds",
    "drawn",
)
# and these the ones that differ between requests for more and fewer of the same images
_OF_THE_COUNT = ("count", "classes_sha256")


def fingerprint(provenance: SampleProvenance) -> str:
    """A digest of everything that decides the bits of the images, so that requests are not mixed up."""
    return _digest_without(provenance, _WITHOUT_EFFECT)


def images_key(provenance: SampleProvenance) -> str:
    """A digest of everything that decides image i: requests for more and fewer of the same images share it.

    Where x_T or small images are given, nothing but the same request has the same: see `drawn_from_seed`.
    """
    if not drawn_from_seed(provenance):
        return fingerprint(provenance)
    return _digest_without(provenance, (*_WITHOUT_EFFECT, *_OF_THE_COUNT))


def drawn_from_seed(provenance: SampleProvenance) -> bool:
    """Whether image i is a function of the seed and i alone, and so there may be any number of them.

    Given images and x_T are not: their digests are over all of them at once.
    """
    given = (provenance.start, provenance.noise_sha256, provenance.low_res_sha256)
    return all(facts is None for facts in given)


@dataclass(frozen=True, kw_only=True)
class FoundArchive:
    """A finished archive under a run, with its record; images_key: what decides image i of it, and more."""

    directory: Path
    archive: Path
    provenance: SampleProvenance
    images_key: str

    @property
    def count(self) -> int:
        """How many images it holds."""
        return self.provenance.count


def write_sample_record(path: Path, provenance: SampleProvenance) -> None:
    """Write sample.json; StorageError when that fails."""
    record = {"schema": SAMPLE_SCHEMA, "fingerprint": fingerprint(provenance)}
    durable.write_json(path, record | encode(provenance))


def archives_of(run: RunPaths) -> tuple[FoundArchive, ...]:
    """The finished archives under a run by name; those whose record cannot be used are passed over."""
    names = sorted(name for name in entry_names(run.samples) if not name.startswith("."))
    found = (found_archive(run.samples / name) for name in names)
    return tuple(archive for archive in found if archive is not None)


def holding(archives: Iterable[FoundArchive], key: str, *, count: int) -> FoundArchive | None:
    """The smallest archive with at least `count` images of this key; None when there is none."""
    enough = [archive for archive in archives if archive.images_key == key and archive.count >= count]
    return min(enough, key=lambda archive: archive.count, default=None)


@dataclass(frozen=True, kw_only=True)
class _Fingerprint:
    fingerprint: str


def found_archive(directory: Path) -> FoundArchive | None:
    """The finished archive in a directory; None when there is none, or its record cannot be used."""
    archives = sorted(directory.glob("samples_*.npz"))
    if len(archives) != 1:
        return None
    path = directory / SAMPLE_RECORD_FILE
    try:
        recorded = read_record(_Fingerprint, path, schema=SAMPLE_SCHEMA, partly=True).fingerprint
        provenance = read_record(SampleProvenance, path, schema=SAMPLE_SCHEMA, partly=True)
    except DiffcliError:
        return None
    # otherwise it says something that this version does not know, or was edited
    if fingerprint(provenance) != recorded:
        return None
    return FoundArchive(
        directory=directory, archive=archives[0], provenance=provenance, images_key=images_key(provenance)
    )


def _digest_without(provenance: SampleProvenance, fields: tuple[str, ...]) -> str:
    # read back first: a whole number in place of another kind is the same fact
    facts = dataclasses.asdict(decode(SampleProvenance, encode(provenance), Path(SAMPLE_RECORD_FILE)))
    for field in fields:
        del facts[field]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
