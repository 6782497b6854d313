"""Whether every update so far was finite, known on the device so that no step waits for the host."""

from __future__ import annotations

import torch
from torch import Tensor


class Health:
    """Remembers the first step whose gradient was not finite; no update is applied from there on."""

    def __init__(self, device: torch.device) -> None:
        self._failed_step = torch.zeros((), dtype=torch.int64, device=device)

    def note(self, gradient_norm: Tensor, step: int) -> None:
        """Take in the gradient's norm, a scalar, of step `step`, counted from 1."""
        fails = ~gradient_norm.isfinite() & (self._failed_step == 0)
        self._failed_step += fails * step

    @property
    def failed(self) -> Tensor:
        """1.0 once a step has failed, else 0.0: float32 scalar on the device."""
        return (self._failed_step > 0).to(torch.float32)

    def failed_step(self) -> int | None:
        """The step that failed, counted from 1, or None; waits for the device."""
        return int(self._failed_step) or None
