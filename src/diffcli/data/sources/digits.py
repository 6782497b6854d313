"""The 1,797 scanned digits that are part of diffcli (UCI, Alpaydin and Kaynak 1998, CC BY 4.0)."""

from __future__ import annotations

import hashlib
import io
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcli.data.sources.source import Origin, SourceFacts
from diffcli.records.datasets import PrepareProgress, no_progress

SPLITS = ("train", "test")
_URL = "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits"
_RULE = "image i of the 1797 is in test when i * 297 mod 1797 is below 297, else in train"
_CLASSES = tuple("0123456789")


class DigitsSource:
    """One of the two splits: 1,500 images to train on, 297 to test with, spread evenly over the file.

    images: uint8 [N, 8, 8, 1]; labels: int64 [N], 0..9. Implements `ImageSource`.
    """

    location = Path("digits")

    def __init__(self, split: str) -> None:
        """split: one of SPLITS."""
        packed = resources.files("diffcli.data.sources").joinpath("digits.npz").read_bytes()
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            ink, labels = arrays["images"], arrays["labels"]
        number = np.arange(len(ink))
        in_test = number * 297 % 1797 < 297
        chosen = in_test if split == "test" else ~in_test
        self.images = gray_of_ink(ink[chosen])[..., np.newaxis]
        self.labels: NDArray[np.int64] = labels[chosen].astype(np.int64)
        self.count = len(self.images)
        self.facts = SourceFacts(split=split, split_rule=_RULE, label_source="source", class_names=_CLASSES)
        self._origin = Origin(url=_URL, size_bytes=len(packed), sha256=hashlib.sha256(packed).hexdigest())

    def name(self, index: int) -> str:
        """As `ImageSource`."""
        return f"digit {index}"

    def image(self, index: int) -> Image.Image:
        """As `ImageSource`."""
        return Image.fromarray(self.images[index, :, :, 0])

    def encoded(self, _index: int) -> None:
        """As `ImageSource`: there are no files."""

    def identity(self) -> str:
        """As `ImageSource`."""
        return self._origin.sha256

    def origin(self, _progress: PrepareProgress = no_progress) -> Origin:
        """As `ImageSource`."""
        return self._origin


def gray_of_ink(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Ink counts 0..16 -> gray 0..255: ink * 255 / 16, rounded, halves up, so 0, 8, 16 are 0, 128, 255."""
    return ((ink.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)
