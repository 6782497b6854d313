"""The 1,797 scanned digits that are part of diffcli (UCI, Alpaydin and Kaynak 1998, CC BY 4.0)."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from diffcli import __version__
from diffcli.records.datasets import DATASET_SCHEMA, DatasetRecord

SPLITS = ("train", "test")
_URL = "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits"
_RULE = "image i of the 1797 is in test when i * 297 mod 1797 is below 297, else in train"
_CLASSES = tuple("0123456789")


@dataclass(frozen=True, kw_only=True)
class DigitsSplit:
    """What to write for one split; images: uint8 [N, 8, 8, 1]; labels: int64 [N], 0..9."""

    facts: DatasetRecord
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def read_digits(split: str) -> DigitsSplit:
    """One of the two splits: 1,500 images to train on, 297 to test with, spread evenly over the file."""
    packed = resources.files("diffcli.data.sources").joinpath("digits.npz").read_bytes()
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        ink, labels = arrays["images"], arrays["labels"]
    number = np.arange(len(ink))
    in_test = number * 297 % 1797 < 297
    chosen = in_test if split == "test" else ~in_test
    images = gray_of_ink(ink[chosen])[..., np.newaxis]
    return DigitsSplit(
        facts=_facts(split, len(images), packed), images=images, labels=labels[chosen].astype(np.int64)
    )


def gray_of_ink(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Ink counts 0..16 -> gray 0..255: ink * 255 / 16, rounded, halves up, so 0, 8, 16 are 0, 128, 255."""
    return ((ink.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)


def _facts(split: str, count: int, packed: bytes) -> DatasetRecord:
    return DatasetRecord(
        schema=DATASET_SCHEMA,
        name="digits",
        variant="",
        split=split,
        split_rule=_RULE,
        count=count,
        height=8,
        width=8,
        channels=1,
        class_names=_CLASSES,
        label_source="source",
        resize_recipe="",
        source_url=_URL,
        source_bytes=len(packed),
        source_sha256=hashlib.sha256(packed).hexdigest(),
        content_hash="",
        diffcli_version=__version__,
    )
