"""What a network is told beside the noisy image and its timestep."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """The class and the small image of each sample, None where the network takes none.

    y: int64 [B], 0..classes-1; low_res: [B, C, h, w] in [-1, 1], for super-resolution.
    """

    y: Tensor | None = None
    low_res: Tensor | None = None

    def to(self, device: torch.device) -> Conditioning:
        """The same on a device."""
        return Conditioning(
            y=None if self.y is None else self.y.to(device),
            low_res=None if self.low_res is None else self.low_res.to(device),
        )

    def part(self, rows: slice) -> Conditioning:
        """The conditioning of some of the samples."""
        return Conditioning(
            y=None if self.y is None else self.y[rows],
            low_res=None if self.low_res is None else self.low_res[rows],
        )


UNCONDITIONAL = Conditioning()
