"""Where the networks leave autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which operations on the device keep the dtype of their inputs."""
    if not torch.amp.is_autocast_available(device.type):
        # the meta device, on which sizes are worked out, has no autocast to leave
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
