"""A directory of PNG files under the reference's names, such as cifar_train/frog_00000.png."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffcli.data.sources.source import ImageSource
from diffcli.data.squares import SquareFormat, squared
from diffcli.data.staging import Staging
from diffcli.data.writer import SECONDS_BETWEEN_SYNCS, Written
from diffcli.durable import storage_errors, sync_file
from diffcli.errors import UsageError
from diffcli.images.encode import PNG, encoded


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A file to write."""

    name: str
    content: bytes


class FolderWriter:
    """Writes one PNG file for each image. Implements `Writer`."""

    def __init__(self, staging: Staging, source: ImageSource, square: SquareFormat) -> None:
        """Go on behind the files that are durable in the staging directory."""
        kept = {file_name(source, index) for index in range(staging.done)}
        there = {path.name for path in staging.directory.iterdir()}
        if not kept <= there:
            staging.start_anew()
        else:
            with storage_errors(staging.directory):
                for name in there - kept:
                    (staging.directory / name).unlink()
        self.done = staging.done
        self._staging = staging
        self._square = square
        self._unsynced: list[Path] = []
        self._synced_at = time.monotonic()

    def make(self, source: ImageSource, index: int) -> PictureFile:
        """The file of an image."""
        pixels = squared(source.image(index), self._square)
        return PictureFile(name=file_name(source, index), content=encoded(pixels, PNG))

    def add(self, made: PictureFile) -> None:
        """As `Writer`."""
        path = self._staging.directory / made.name
        with storage_errors(path):
            path.write_bytes(made.content)
        self._unsynced.append(path)
        self.done += 1
        if time.monotonic() - self._synced_at >= SECONDS_BETWEEN_SYNCS:
            self.keep()

    def keep(self) -> None:
        """As `Writer`."""
        with storage_errors(self._staging.directory):
            for path in self._unsynced:
                sync_file(path)
        self._unsynced.clear()
        self._staging.keep(self.done)
        self._synced_at = time.monotonic()

    def finish(self, _labels: NDArray[np.int64] | None) -> Written:
        """As `Writer`: a folder has no hash, and its files are synced when it appears."""
        return Written(content_hash="")


def file_name(source: ImageSource, index: int) -> str:
    """The reference's name of an image: its class or the source's prefix, and its number."""
    names, facts = source.facts.reference_names, source.facts
    number = f"{index:0{names.digits}d}.png"
    if names.prefix:
        return f"{names.prefix}_{number}"
    if source.labels is None:
        return number
    return f"{facts.class_names[source.labels[index]]}_{number}"


def require_class_names(source: ImageSource) -> None:
    """UsageError when the file names would tell other classes than the images have."""
    names = () if source.facts.reference_names.prefix else source.facts.class_names
    wrong = [name for name in names if "_" in name or "/" in name]
    if wrong:
        raise UsageError(
            f"a class called {wrong[0]!r} cannot be told by names of files",
            where="in a folder the class is the file name up to its first underscore",
            remedy="leave --layout folder out, or rename the class",
        )


def holds_exactly(directory: Path, source: ImageSource) -> bool:
    """Whether a directory holds the files of a source, by their names, and nothing else."""
    there = {path.name for path in directory.iterdir()}
    return len(there) == source.count and all(
        file_name(source, index) in there for index in range(source.count)
    )
