"""What a network is told beside the noisy image and its timestep."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """The class and the small image of each sample, None where the network takes none.

    y: int64 [B], 0..classes-1; low_res: [B, C, h, w] in [-1, 1], for super-resolution.
    """

    y: Tensor | None = None
    low_res: Tensor | None = None


UNCONDITIONAL = Conditioning()
