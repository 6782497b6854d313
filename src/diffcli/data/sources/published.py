"""What is known of the datasets of the papers, held against what is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffcli.errors import CorruptError
from diffcli.images.decode import printable

_SHOWN = 5


def check_published(
    name: str, location: Path, differences: Sequence[str], *, allow_partial: bool, remedy: str
) -> None:
    """CorruptError that names the differences from the published dataset, unless they are allowed."""
    if not differences or allow_partial:
        return
    more = [f"and {len(differences) - _SHOWN} more"] if len(differences) > _SHOWN else []
    raise CorruptError(
        f"{printable(location)} is not the published {name}",
        where="\n".join([*differences[:_SHOWN], *more]),
        remedy=f"{remedy}; --allow-partial takes it as it is",
    )


def count_difference(split: str, found: int, published: int) -> list[str]:
    """A sentence when a split has another number of images than the published one."""
    if found == published:
        return []
    return [f"{split} has {found:,} images, the published one {published:,}"]


def split_rule(split: str, found: int, published: int) -> str:
    """What dataset.json tells of a split."""
    if found == published:
        return published_rule(split)
    return f"{found} images, where the published {split} split has {published} (--allow-partial)"


def published_rule(split: str) -> str:
    """The same of a split as it was published."""
    return f"the published {split} split"
