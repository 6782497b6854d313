"""What a network is told beside the noisy image and its timestep."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """The class and the small image of each sample, None where the network takes none.

    y: int64 [B], 0..classes-1, or `classes` for no class, if training dropped labels;
    low_res: [B, C, h, w] in [-1, 1], for super-resolution.
    """

    y: Tensor | None = None
    low_res: Tensor | None = None

    def to(self, device: torch.device) -> Conditioning:
        """The same on a device."""
        return Conditioning(
            y=None if self.y is None else self.y.to(device),
            low_res=None if self.low_res is None else self.low_res.to(device),
        )

    def followed_by(self, other: Conditioning) -> Conditioning:
        """Two batches as one; both have a class, or neither, and the same for the small image."""
        return Conditioning(
            y=_joined(self.y, other.y),
            low_res=_joined(self.low_res, other.low_res),
        )

    def part(self, rows: slice) -> Conditioning:
        """The conditioning of some of the samples."""
        return Conditioning(
            y=None if self.y is None else self.y[rows],
            low_res=None if self.low_res is None else self.low_res[rows],
        )


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        assert first is second, "only batches of one kind can be joined"
        return None
    return torch.cat((first, second))


UNCONDITIONAL = Conditioning()
