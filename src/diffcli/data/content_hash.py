"""The digest that a run records of the images and labels it was trained on."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

from diffcli.records.datasets import DatasetRecord


class ContentHash:
    """SHA-256 over shape and class names, then what is added in the order of the images, then the labels."""

    def __init__(self, facts: DatasetRecord) -> None:
        shape = [facts.count, facts.height, facts.width, facts.channels]
        self._digest = hashlib.sha256(json.dumps([shape, facts.class_names]).encode())

    def add(self, content: bytes | memoryview) -> None:
        """Go on with these bytes."""
        self._digest.update(content)

    def finished(self, labels: NDArray[np.int64] | None) -> str:
        """The digest of all, as hexadecimal text; labels: int64 [count], or None."""
        if labels is not None:
            self._digest.update(labels.astype("<i8").tobytes())
        return self._digest.hexdigest()


def bytes_of(pixels: NDArray[np.uint8]) -> memoryview:
    """The bytes of an array in row-major order, without a copy where it lies so."""
    return np.ascontiguousarray(pixels).data
