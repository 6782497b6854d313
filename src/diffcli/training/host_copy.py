"""Copies of the state in host memory, taken while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_ALIGNMENT = 64
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
        on_cuda = self._device.type == "cuda"
        tensors = {(name, key): tensor for name, group in groups.items() for key, tensor in group.items()}
        self._allocate({place: tensor for place, tensor in tensors.items() if place not in self._buffers})
        for place, tensor in tensors.items():
            # elsewhere a copy that does not block may not be there when it is read
            self._buffers[place].copy_(tensor.detach(), non_blocking=on_cuda)
        copied = {name: {key: self._buffers[name, key] for key in group} for name, group in groups.items()}
        if not on_cuda:
            return Copy(groups=copied, wait=lambda: None)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(self._device))
        return Copy(groups=copied, wait=done.synchronize)

    def _allocate(self, tensors: Mapping[tuple[str, str], Tensor]) -> None:
        """Make room in one block: pinned blocks take long to make, and are rounded up to powers of two."""
        sizes = {place: -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT for place, tensor in tensors.items()}
        pinned = self._device.type == "cuda"
        block = torch.empty(sum(sizes.values()), dtype=torch.uint8, pin_memory=pinned)
        start = 0
        for place, tensor in tensors.items():
            room = block[start : start + tensor.nbytes]
            self._buffers[place] = room.view(tensor.dtype).view(tensor.shape)
            start += sizes[place]
