"""A quantity of the noise schedule, one number per timestep."""

from __future__ import annotations

import torch
from torch import Tensor


class Table:
    """A float64 table over the timesteps, looked up in the precision and on the device of the images."""

    def __init__(self, values: Tensor) -> None:
        """values: float64 [T], on the CPU."""
        assert values.dtype == torch.float64
        assert values.ndim == 1
        self.values = values
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def at(self, t: Tensor, like: Tensor) -> Tensor:
        """The entries at t: [N, 1, ..., 1], to broadcast over `like` [N, ...]; float32, or float64 as `like`.

        t: int64 [N] in 0..T-1, on the device of `like`.
        """
        dtype = torch.promote_types(like.dtype, torch.float32)
        return self._copy(like.device, dtype)[t].reshape(-1, *(1,) * (like.ndim - 1))

    def _copy(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        # kept per device, so that a training step neither copies from the host nor waits for it
        key = (device, dtype)
        if key not in self._copies:
            # a preview may look up first, and a tensor born in inference mode could not be trained with later
            with torch.inference_mode(False):
                # rounded before it moves: MPS holds no float64
                self._copies[key] = self.values.to(dtype, copy=True).to(device)
        return self._copies[key]
