"""Global batches as a function of (seed, step), and the threads that compute them ahead."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcli.config.sections import DataConfig
from diffcli.data.buffers import BatchBuffers
from diffcli.data.cropping import centered, cropped
from diffcli.data.dataset import Dataset
from diffcli.data.order import EpochFlips, OrderedImages, TrainingOrder
from diffcli.data.prepared import PreparedDataset
from diffcli.data.squares import decoding_threads
from diffcli.errors import UsageError
from diffcli.images.conversion import from_uint8
from diffcli.images.decode import printable
from diffcli.images.resize import Size, random_crop, random_crop_sides
from diffcli.randomness.streams import Stream, uniform

# Each makes a batch of its own; what must be decoded is spread over all cores besides.
_MOST_THREADS = 4
_MOST_AT_ONCE = 8
_TASK_BYTES = 2**22


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Positions of one global batch, on the CPU, not yet mirrored.

    images: uint8 [N, H, W, C]; labels: int64 [N], or None when the dataset has no classes; flips: bool [N].
    """

    images: Tensor
    labels: Tensor | None
    flips: Tensor


class BatchSource:
    """The global batches of a training run. Thread-safe."""

    def __init__(self, dataset: Dataset, config: DataConfig, *, seed: int, batch_size: int) -> None:
        """UsageError when the dataset's size or channels do not suit the configuration."""
        _check_fit(dataset, config)
        self._dataset = dataset
        self._config = config
        self._seed = seed
        self._batch_size = batch_size
        self._order = TrainingOrder(seed=seed, count=dataset.count, batch_size=batch_size)
        self._epoch_flips = EpochFlips(seed=seed, count=dataset.count)
        self._buffers = BatchBuffers()

    @property
    def batches_at_once(self) -> int:
        """How many are worth a task of their own: handing one over takes as long as a gather from memory."""
        image_bytes = self._dataset.height * self._dataset.width * self._dataset.channels
        small = isinstance(self._dataset, PreparedDataset)
        return max(1, min(_MOST_AT_ONCE, _TASK_BYTES // (self._batch_size * image_bytes))) if small else 1

    def pin_memory(self) -> None:
        """From now on images lie in pinned memory, from where a CUDA device copies while it computes."""
        self._buffers.pinned = True

    def batch(self, step: int, positions: range) -> Batch:
        """These positions of the global batch of a step, counted from 0; depends on nothing else."""
        return self.batches(range(step, step + 1), positions)[0]

    def batches(self, steps: range, positions: range) -> list[Batch]:
        """The same of consecutive steps, read at once: a small one takes as long to ask for as to read.

        They are parts of one piece of memory, which is held as long as any of them.
        """
        ordered = self._order.over(steps, positions)
        indices = ordered.indices.numpy()
        dataset = self._dataset
        stored = self._buffers.take((len(indices), dataset.height, dataset.width, dataset.channels))
        dataset.read(indices, stored.numpy())
        images = _by_step(self._at_resolution(stored, ordered), steps)
        flips = _by_step(self._flips(ordered), steps)
        labels: Sequence[Tensor | None] = [None] * len(steps)
        if dataset.class_names:
            labels = _by_step(torch.from_numpy(dataset.labels(indices)), steps)
        return [
            Batch(images=batch_images, labels=batch_labels, flips=batch_flips)
            for batch_images, batch_labels, batch_flips in zip(images, labels, flips, strict=True)
        ]

    def _flips(self, ordered: OrderedImages) -> Tensor:
        if not self._config.flip:
            return torch.zeros_like(ordered.indices, dtype=torch.bool)
        return self._epoch_flips.of(ordered)

    def _at_resolution(self, stored: Tensor, ordered: OrderedImages) -> Tensor:
        size = (self._config.resolution, self._config.resolution)
        if self._config.crop == "center" and stored.shape[1:3] == size:
            return stored
        return torch.from_numpy(self._cut(stored.numpy(), ordered))

    def _cut(self, images: NDArray[np.uint8], ordered: OrderedImages) -> NDArray[np.uint8]:
        if self._config.crop == "center":
            return centered(images, self._config)
        size = Size(self._dataset.width, self._dataset.height)
        draws = uniform(self._seed, Stream.CROP, ordered.indices, step=ordered.epochs, count=3)
        crops = [random_crop(size, self._config.resolution, row) for row in draws.tolist()]
        return cropped(images, crops, self._config)


def network_images(images: Tensor, flips: Tensor) -> Tensor:
    """Mirror where `flips` says and convert, on the images' device.

    images: uint8 [N, H, W, C]; flips: bool [N]. Returns float32 [N, C, H, W] in [-1, 1].
    """
    planes = images.permute(0, 3, 1, 2)
    mirrored = torch.where(flips[:, None, None, None], planes.flip(3), planes)
    return from_uint8(mirrored.contiguous())


class Prefetcher:
    """Iterates over the batches of the steps, computing the next few in threads.

    Use as a context manager: leaving it ends the threads. `waited_seconds` is how long the consumer has
    waited so far; an error in a thread is raised at the step it belongs to.
    """

    def __init__(
        self, source: BatchSource, steps: range, positions: range, *, ahead: int = 0, threads: int = 0
    ) -> None:
        """positions: of this process in every global batch; ahead: tasks that are done or under way, each of
        one batch, or of a few small ones; threads: that do them. 0: chosen by the cores.
        """
        threads = threads or min(decoding_threads(), _MOST_THREADS)
        self.waited_seconds = 0.0
        self._source = source
        self._positions = positions
        self._ahead = ahead or threads + 2
        at_once = source.batches_at_once
        self._tasks: Iterator[range] = (
            steps[first : first + at_once] for first in range(0, len(steps), at_once)
        )
        self._under_way: deque[Future[list[Batch | Exception]]] = deque()
        self._ready: deque[Batch | Exception] = deque()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="batches")

    def __enter__(self) -> Self:
        self._start_more()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if not self._ready:
            self._start_more()
            if not self._under_way:
                raise StopIteration
            started_at = time.perf_counter()
            self._ready.extend(self._under_way.popleft().result())
            self.waited_seconds += time.perf_counter() - started_at
            self._start_more()
        batch = self._ready.popleft()
        if isinstance(batch, Exception):
            raise batch
        return batch

    def close(self) -> None:
        """Drop what was computed ahead and wait for the threads to end."""
        self._tasks = iter(())
        self._under_way.clear()
        self._ready.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _start_more(self) -> None:
        for steps in islice(self._tasks, self._ahead - len(self._under_way)):
            self._under_way.append(self._pool.submit(self._made, steps))

    def _made(self, steps: range) -> list[Batch | Exception]:
        """The batches of these steps, up to the first that cannot be made, for which its error stands."""
        if len(steps) > 1:
            # that it cannot be done at once does not tell for which step
            with contextlib.suppress(Exception):
                return [*self._source.batches(steps, self._positions)]
        made: list[Batch | Exception] = []
        for step in steps:
            try:
                made.append(self._source.batch(step, self._positions))
            except Exception as error:  # raised again where the batch is asked for
                made.append(error)
                break
        return made


def _by_step(joined: Tensor, steps: range) -> tuple[Tensor, ...]:
    each = joined.shape[0] // len(steps)
    return joined.view(len(steps), each, *joined.shape[1:]).unbind()


def _check_fit(dataset: Dataset, config: DataConfig) -> None:
    where = f"dataset {printable(dataset.location)}"
    if dataset.channels != config.channels:
        raise UsageError(
            f"data.channels is {config.channels}, but the dataset's images have {dataset.channels}",
            where=where,
            remedy=f"--set data.channels={dataset.channels}",
        )
    shorter = min(dataset.height, dataset.width)
    if shorter < config.resolution:
        raise UsageError(
            f"data.resolution is {config.resolution}, but the dataset's images are "
            f"{dataset.width}x{dataset.height}",
            where=where,
            remedy=f"--set data.resolution={shorter}, or prepare the images at that size",
        )
    if config.crop == "random" and shorter == config.resolution:
        larger = random_crop_sides(config.resolution)[-1]
        raise UsageError(
            "data.crop is random, but the dataset's images are no larger than data.resolution",
            where=where,
            remedy=f"prepare them at --size {larger} or more, or --set data.crop=center",
        )
