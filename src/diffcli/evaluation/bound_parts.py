"""The bounds of finished batches of images, as long as others are missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from diffcli.evaluation.likelihood import BatchBounds
from diffcli.parts import BatchParts, BatchPlan

_FLOAT64_BYTES = 8
# of the chain: how many images saw a step, and three sums over them
_ROWS = 4


class BoundParts(BatchParts[BatchBounds]):
    """Parts of float64 numbers: vb and prior of each image, then `images` and `sums` of the chain."""

    def __init__(self, directory: Path, plan: BatchPlan, *, chain_steps: int) -> None:
        super().__init__(directory, plan)
        self.chain_steps = chain_steps

    def write(self, batch: int, content: BatchBounds) -> None:
        """Keep the bounds of a batch."""
        rows = (content.vb, content.prior, content.images, content.sums.flatten())
        numbers = torch.cat(rows).numpy()
        assert numbers.dtype == np.float64
        assert len(numbers) == self._length(batch)
        self._write_bytes(batch, numbers.tobytes())

    def read(self) -> Iterator[BatchBounds]:
        """The bounds of all batches, in order; CorruptError for a part that is not whole."""
        for batch in range(self.plan.batches):
            content = self._read_bytes(batch, self._length(batch) * _FLOAT64_BYTES)
            # copied, because torch takes no numbers that must not be written to
            numbers = torch.from_numpy(np.frombuffer(content, dtype=np.float64).copy())
            images = len(self.plan.images(batch))
            per_image, of_chain = numbers[: 2 * images], numbers[2 * images :].reshape(_ROWS, -1)
            yield BatchBounds(
                vb=per_image[:images], prior=per_image[images:], images=of_chain[0], sums=of_chain[1:]
            )

    def _length(self, batch: int) -> int:
        return 2 * len(self.plan.images(batch)) + _ROWS * self.chain_steps
