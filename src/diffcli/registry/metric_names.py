"""The names of metrics in records, and which way each is better."""

from __future__ import annotations

BITS_PER_DIM = "bits/dim"
_SHORT = {"bpd": BITS_PER_DIM}
# those of Inception's features have names of their own; of others, the extractor's name follows: fd_pixels
_FAMILIES = {
    "fid": "fd",
    "sfid": "sfd",
    "kid": "kd",
    "fid_infinity": "fd_infinity",
    **{name: name for name in ("fd", "sfd", "kd", "fd_infinity", "is", "precision", "recall")},
    **{name: name for name in ("density", "coverage", "nearest", "memorized", BITS_PER_DIM)},
}
_LARGER_IS_BETTER = frozenset({"is", "precision", "recall", "density", "coverage"})


def full_name(name: str) -> str:
    """What records call a metric: bits/dim for bpd."""
    return _SHORT.get(name, name)


def family_of(name: str) -> str:
    """What kind of number it is, whatever the features: fd for fid and fd_pixels; else the name."""
    # the longest first: fd_infinity_pixels is no fd
    for known in sorted(_FAMILIES, key=len, reverse=True):
        if name == known or name.startswith(f"{known}_"):
            return _FAMILIES[known]
    return name


def larger_is_better(name: str) -> bool:
    """Whether the best is the largest; of distances and bits/dim it is the smallest."""
    return family_of(name) in _LARGER_IS_BETTER
