"""Dropout (Srivastava et al. 2014) that does not spend its time on drawing random numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 2**16
_LOWEST_WORD = torch.iinfo(torch.int64).min
_LOWEST_VALUE = torch.iinfo(torch.int16).min
_VALUES_PER_WORD = 4


class Dropout(nn.Module):
    """Zeros a share p of the activations while training and scales the rest, so that the mean stays.

    On the CPU p is rounded to a multiple of 2**-16 (0.3 becomes 0.300003), and the scale fits the rounded p.
    The mask comes from torch's default generator, so that torch.manual_seed decides it.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        assert 0 <= p < 1
        self.p = p

    def forward(self, h: Tensor) -> Tensor:
        """Any shape and floating dtype; the same out."""
        if not self.training or self.p == 0:
            return h
        # on a GPU one random number an element costs nothing
        return _packed_dropout(h, self.p) if h.device.type == "cpu" else F.dropout(h, self.p)

    def extra_repr(self) -> str:
        """Shown by repr()."""
        return f"p={self.p}"


def _packed_dropout(h: Tensor, p: float) -> Tensor:
    """Dropout with four mask values from each 64-bit draw, where F.dropout draws for each value."""
    dropped_levels = min(round(p * _LEVELS), _LEVELS - 1)
    words = torch.empty(-(-h.numel() // _VALUES_PER_WORD), dtype=torch.int64)
    # the upper bound None makes all 64 bits random
    values = words.random_(_LOWEST_WORD, None).view(torch.int16)
    # in place: 1 where the value is kept, else 0
    kept = values.ge_(_LOWEST_VALUE + dropped_levels)[: h.numel()]
    # E[mask * scale] = 1
    scale = _LEVELS / (_LEVELS - dropped_levels)
    return h * kept.to(h.dtype).mul_(scale).view(h.shape)
