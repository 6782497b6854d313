"""A source without the images of it that cannot be decoded, which are found by decoding all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcli.data.sources.source import ImageSource, Origin, SourceFacts
from diffcli.data.squares import decoding_pool, made_ahead
from diffcli.errors import CorruptError, MissingError
from diffcli.images.decode import printable
from diffcli.records.datasets import PrepareProgress, no_progress


class WholeImages:
    """The chosen images of a source. Implements `ImageSource`."""

    def __init__(self, source: ImageSource, chosen: Sequence[int]) -> None:
        """chosen: rising indices of the source, at least one."""
        self._source = source
        self._chosen = np.array(chosen, dtype=np.int64)

    @property
    def location(self) -> Path:
        """As `ImageSource`."""
        return self._source.location

    @property
    def facts(self) -> SourceFacts:
        """As `ImageSource`, with the number of those left out."""
        facts = self._source.facts
        left_out = self._source.count - self.count
        return dataclasses.replace(facts, split_rule=f"{facts.split_rule}; {left_out} damaged are left out")

    @property
    def count(self) -> int:
        """As `ImageSource`."""
        return len(self._chosen)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """As `ImageSource`."""
        labels = self._source.labels
        return None if labels is None else labels[self._chosen]

    def name(self, index: int) -> str:
        """As `ImageSource`."""
        return self._source.name(int(self._chosen[index]))

    def image(self, index: int) -> Image.Image:
        """As `ImageSource`."""
        return self._source.image(int(self._chosen[index]))

    def encoded(self, index: int) -> bytes | None:
        """As `ImageSource`."""
        return self._source.encoded(int(self._chosen[index]))

    def identity(self) -> str:
        """As `ImageSource`; which images are chosen follows from the source."""
        return self._source.identity()

    def origin(self, progress: PrepareProgress = no_progress) -> Origin:
        """As `ImageSource`."""
        return self._source.origin(progress)


def without_damaged(source: ImageSource, progress: PrepareProgress) -> ImageSource:
    """The source, or the images of it that can be decoded; MissingError when there is none."""
    with decoding_pool() as pool:
        whole = made_ahead(source, range(source.count), lambda i: _is_whole(source, i), pool, progress)
        chosen = [index for index, usable in enumerate(whole) if usable]
    if not chosen:
        raise MissingError(
            f"{printable(source.location)} holds no image that can be decoded", remedy="get it once more"
        )
    return source if len(chosen) == source.count else WholeImages(source, chosen)


def _is_whole(source: ImageSource, index: int) -> bool:
    try:
        source.image(index)
    except CorruptError:
        return False
    return True
