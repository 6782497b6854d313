"""Class names and the class number of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffcli.images.decode import printable


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Sorted class names and the class number of each file, int64 [N]."""

    names: tuple[str, ...]
    labels: NDArray[np.int64]


def numbered_classes(classes: Sequence[str]) -> Classes:
    """The classes of these images by name; a class's number is its place among the sorted names."""
    names = sorted(set(classes))
    number = {name: place for place, name in enumerate(names)}
    return Classes(
        names=tuple(printable(name) for name in names),
        labels=np.array([number[name] for name in classes], dtype=np.int64),
    )
