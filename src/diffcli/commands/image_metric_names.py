"""The metrics of images by name, as they are asked for and as results call them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from diffcli.config.suggest import did_you_mean, nearest
from diffcli.errors import UsageError

# of any features; each has another name where they are Inception's, and a name with theirs where they are not
Family = Literal[
    "fd", "sfd", "is", "precision", "recall", "kd", "density", "coverage", "fd_infinity", "nearest"
]
INCEPTION = "inception"
_FAMILIES: tuple[Family, ...] = (
    *("fd", "sfd", "is", "precision", "recall"),
    *("kd", "density", "coverage", "fd_infinity", "nearest"),
)
_OF_INCEPTION: tuple[tuple[Family, str], ...] = (
    ("fd", "fid"),
    ("sfd", "sfid"),
    ("kd", "kid"),
    ("fd_infinity", "fid_infinity"),
)
_PAPERS = ("fid", "sfid", "is", "precision", "recall", "kid")
_OF_OTHERS = ("fd", "kd", "precision", "recall")


@dataclass(frozen=True, kw_only=True)
class AskedMetric:
    """What was asked for, and what it is; of_inception: by a name that only Inception's features give it."""

    text: str
    family: Family
    of_inception: bool


def parse_metrics(text: str | None, features: str) -> tuple[AskedMetric, ...]:
    """The metrics of a list such as `fid,precision`, each once; None: those of the papers that there can be.

    features: what makes the features, as the user named it. UsageError for a name that is none.
    """
    if text is None:
        names: Sequence[str] = _PAPERS if features == INCEPTION else _OF_OTHERS
    else:
        names = [name.strip() for name in text.split(",")]
    return tuple(_parsed(name) for name in dict.fromkeys(names))


def metric_name(family: str, extractor: str) -> str:
    """What results call a metric: fid of Inception's features, fd_pixels of pixels."""
    if extractor == INCEPTION:
        return dict[str, str](_OF_INCEPTION).get(family, family)
    return f"{family}_{extractor}"


def _parsed(name: str) -> AskedMetric:
    for family, inception_name in _OF_INCEPTION:
        if name == inception_name:
            return AskedMetric(text=name, family=family, of_inception=True)
    for family in _FAMILIES:
        if name == family:
            return AskedMetric(text=name, family=family, of_inception=False)
    known = [*(name for _, name in _OF_INCEPTION), *_FAMILIES]
    raise UsageError(
        f"there is no metric {name!r}",
        where="--metrics",
        remedy=f"{did_you_mean(nearest(name, known, count=1))} There are {', '.join(known)}".strip(),
    )
