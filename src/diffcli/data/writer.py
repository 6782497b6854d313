"""What every form of output does with the images of a split: one method in threads, the rest in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from diffcli.data.sources.source import ImageSource

Made = TypeVar("Made")
# Called with the images that were read again so far; raises what is to end the work.
Check = Callable[[int], None]

# What a power cut may cost. A kill costs no more.
SECONDS_BETWEEN_SYNCS = 5.0


@dataclass(frozen=True, kw_only=True)
class Written:
    """What is known of a dataset only when all its images are written."""

    content_hash: str
    shard_sha256: tuple[str, ...] = ()


class Writer(Protocol[Made]):
    """Writes the images of one split into a staging directory; the first `done` are there."""

    @property
    def done(self) -> int:
        """Images taken, those of an interrupted preparation among them."""

    def make(self, source: ImageSource, index: int) -> Made:
        """What is to be stored of an image; called in threads, errors are those of `squared`."""

    def add(self, made: Made) -> None:
        """Take the next image; StorageError."""

    def keep(self) -> None:
        """Make what was taken survive a power cut, and tell the staging directory."""

    def finish(self, labels: NDArray[np.int64] | None) -> Written:
        """Complete the files after the last image."""
