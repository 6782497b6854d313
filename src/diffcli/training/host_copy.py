"""Copies of the state in host memory, taken while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Groups = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Groups of named tensors on the host, complete once `wait` has returned; any thread may wait."""

    groups: Groups
    wait: Callable[[], None]


class HostBuffers:
    """Memory for one copy at a time, allocated at the first and used again by the next."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: dict[tuple[str, str], Tensor] = {}

    def copy(self, groups: Groups) -> Copy:
        """Copy the tensors; on CUDA the steps that follow wait for it, and the host does not."""
        copied = {
            name: {key: self._copied((name, key), tensor) for key, tensor in tensors.items()}
            for name, tensors in groups.items()
        }
        if self._device.type != "cuda":
            return Copy(groups=copied, wait=lambda: None)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(self._device))
        return Copy(groups=copied, wait=done.synchronize)

    def _copied(self, key: tuple[str, str], tensor: Tensor) -> Tensor:
        buffer = self._buffers.get(key)
        if buffer is None:
            # pinned, so that CUDA writes into it while the host goes on
            pinned = self._device.type == "cuda"
            buffer = self._buffers[key] = torch.empty_like(tensor, device="cpu", pin_memory=pinned)
        return buffer.copy_(tensor.detach(), non_blocking=True)
