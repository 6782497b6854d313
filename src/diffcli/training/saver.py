"""Saving without stopping: a copy of the state is written by a thread while training goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from diffcli import durable
from diffcli.errors import StorageError
from diffcli.records.training import CheckpointSaved, SaveFailed
from diffcli.training import checkpoints
from diffcli.training.checkpoints import CheckpointContent
from diffcli.training.host_copy import HostBuffers
from diffcli.training.retention import Retention

SaveEvent = CheckpointSaved | SaveFailed


@dataclass(frozen=True, kw_only=True)
class Save:
    """What is to be written of the state after `step` steps; either may be absent."""

    step: int
    checkpoint: CheckpointContent | None
    ema_snapshot: CheckpointContent | None


@dataclass(frozen=True, kw_only=True)
class Store:
    """Where saves go, and which of the checkpoints stay."""

    checkpoints: Path
    ema_snapshots: Path
    retention: Retention

    def write(self, save: Save) -> CheckpointSaved | None:
        """Write all of it, then let old checkpoints go; StorageError when the disk refuses.

        The snapshot comes first: a resume from the checkpoint does not come by its step again.
        """
        started = time.monotonic()
        if save.ema_snapshot is not None:
            checkpoints.save(self.ema_snapshots, save.step, save.ema_snapshot)
        if save.checkpoint is None:
            return None
        directory = checkpoints.save(self.checkpoints, save.step, save.checkpoint)
        with durable.storage_errors(directory):
            size = sum(file.stat().st_size for file in directory.iterdir())
        return CheckpointSaved(
            step=save.step,
            directory=directory,
            seconds=time.monotonic() - started,
            size_bytes=size,
            not_deleted=self._let_old_ones_go(save.step),
        )

    def _let_old_ones_go(self, step: int) -> str:
        """Why an old checkpoint could not be deleted, or nothing; the new one is saved all the same."""
        try:
            checkpoints.prune(self.checkpoints, self.retention, up_to_step=step)
        except StorageError as error:
            return error.what
        return ""


class BackgroundSaver:
    """Writes saves in a thread, at most one at a time; leaving its block waits for the one in flight."""

    def __init__(self, store: Store, buffers: HostBuffers) -> None:
        self.store = store
        self._buffers = buffers
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saver")
        self._in_flight: Future[SaveEvent | None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown(wait=True)

    def begin(self, save: Save) -> Iterator[SaveEvent]:
        """Copy what is to be saved and let it be written; tells how the save before has ended."""
        yield from self.settle()
        copied, wait = self._copied(save)

        def write() -> SaveEvent | None:
            wait()
            try:
                return self.store.write(copied)
            except StorageError as failure:
                return SaveFailed(step=save.step, reason=failure.what)

        self._in_flight = self._writer.submit(write)

    def finished(self) -> Iterator[SaveEvent]:
        """How the save in flight has ended, if it has; does not wait."""
        if self._in_flight is not None and self._in_flight.done():
            yield from self.settle()

    def settle(self) -> Iterator[SaveEvent]:
        """Wait for the save in flight, and tell how it has ended."""
        if self._in_flight is None:
            return
        in_flight, self._in_flight = self._in_flight, None
        event = in_flight.result()
        if event is not None:
            yield event

    def _copied(self, save: Save) -> tuple[Save, Callable[[], None]]:
        contents = [content for content in (save.checkpoint, save.ema_snapshot) if content is not None]
        # a snapshot's tensors are the checkpoint's too, when both are due
        copy = self._buffers.copy(
            {name: group for content in contents for name, group in content.tensors.items()}
        )

        def on_host(content: CheckpointContent | None) -> CheckpointContent | None:
            if content is None:
                return None
            tensors = {name: copy.groups[name] for name in content.tensors}
            return CheckpointContent(tensors=tensors, counters=content.counters)

        held = Save(
            step=save.step, checkpoint=on_host(save.checkpoint), ema_snapshot=on_host(save.ema_snapshot)
        )
        return held, copy.wait
