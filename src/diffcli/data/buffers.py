"""Memory for batches, which is used again: fresh pages cost as much as filling them."""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class BatchBuffers:
    """Gives out uint8 tensors of the host, and those that nobody holds any longer again. Thread-safe."""

    def __init__(self) -> None:
        self.pinned = False
        self._free: defaultdict[tuple[int, ...], list[NDArray[np.uint8]]] = defaultdict(list)
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor of any content; in pinned memory when `pinned` is set, which a CUDA device must be for."""
        if self.pinned:
            # torch keeps these for reuse itself, and knows when copies from them have ended
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        with self._lock:
            free = self._free[shape]
            memory = free.pop() if free else np.empty(shape, dtype=np.uint8)
        held = memory[:]
        # append is atomic, and whoever drops the last reference may hold the lock
        weakref.finalize(held, self._free[shape].append, memory).atexit = False
        return torch.from_numpy(held)
