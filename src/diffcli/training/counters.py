"""What a training counts besides its tensors, as a checkpoint's state.json holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Counters:
    """Counts of a training after some step.

    optimizer_updates: fewer than steps when fp16 skipped some; loss_scale: None without fp16; interval_sums:
    float64 [processes, rows, columns] of the unfinished log interval.
    """

    images_seen: int
    optimizer_updates: int
    loss_scale: float | None
    overflows_in_a_row: int
    interval_sums: Tensor

    def to_json(self) -> Mapping[str, Any]:
        """The counters as JSON values, from which they come back bit by bit."""
        return vars(self) | {"interval_sums": self.interval_sums.tolist()}


def counters_from_json(found: Mapping[str, Any], *, sums: Tensor) -> Counters:
    """The counters of a training whose own sums are [rows, columns]; ValueError for what is none."""
    scale = found.get("loss_scale")
    if scale is not None and type(scale) is not float:
        raise ValueError("loss_scale is no number")
    return Counters(
        images_seen=_count(found, "images_seen"),
        optimizer_updates=_count(found, "optimizer_updates"),
        loss_scale=scale,
        overflows_in_a_row=_count(found, "overflows_in_a_row"),
        interval_sums=_interval_sums(found, sums),
    )


def _count(found: Mapping[str, Any], name: str) -> int:
    value = found.get(name)
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} is no count")
    return value


def _interval_sums(found: Mapping[str, Any], sums: Tensor) -> Tensor:
    try:
        saved = torch.tensor(found.get("interval_sums"), dtype=sums.dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError("interval_sums are no numbers") from error
    if saved.shape[1:] != sums.shape or not len(saved):
        raise ValueError(f"interval_sums are {list(saved.shape)}, needed is one {list(sums.shape)} a process")
    return saved
