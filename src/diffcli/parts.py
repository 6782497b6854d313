"""The finished batches of long work: files, each whole or absent, in a directory that outlives a kill."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from diffcli import durable
from diffcli.errors import CorruptError, StorageError

Content = TypeVar("Content")

_REQUEST = "request.json"
# of network file systems, which keep for a while that a file is not there
_PATIENCE_SECONDS = 120.0
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How many images, worked on batch by batch."""

    count: int
    batch_size: int

    @property
    def batches(self) -> int:
        """Number of batches, the last one perhaps not full."""
        return -(-self.count // self.batch_size)

    def indices(self, batch: int) -> range:
        """The indices of a full batch; those from count upwards are of no image."""
        return range(batch * self.batch_size, (batch + 1) * self.batch_size)

    def images(self, batch: int) -> range:
        """The indices of the images of a batch."""
        return range(batch * self.batch_size, min((batch + 1) * self.batch_size, self.count))


class BatchParts(ABC, Generic[Content]):
    """What the batches of a plan have given so far, for as long as the whole is not done."""

    def __init__(self, directory: Path, plan: BatchPlan) -> None:
        self.directory = directory
        self.plan = plan

    def begin(self, key: str) -> None:
        """Keep the parts that are there if they have the same key, else start with none."""
        if self.key != key:
            durable.remove_tree(self.directory)
        with durable.storage_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        durable.write_json(self.directory / _REQUEST, key)

    @property
    def key(self) -> str | None:
        """What decides the parts that are there, as a digest; None when there are none."""
        try:
            return str(json.loads((self.directory / _REQUEST).read_bytes()))
        except (OSError, ValueError):
            return None

    def missing(self) -> tuple[int, ...]:
        """The batches still to compute."""
        return tuple(batch for batch in range(self.plan.batches) if not self._path(batch).is_file())

    def await_all(self, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        """Wait until no part is missing: what another machine wrote may take a while to be seen here.

        StorageError when some never come: then the processes do not share the directory.
        """
        deadline = time.monotonic() + patience_seconds
        while missing := self.missing():
            if time.monotonic() > deadline:
                raise StorageError(
                    f"{len(missing)} of {self.plan.batches} batches are not in {self.directory}, "
                    "though they were computed",
                    remedy="all processes need the same directory: give one that all machines share",
                )
            time.sleep(_LOOK_SECONDS)

    @abstractmethod
    def write(self, batch: int, content: Content) -> None:
        """Keep what a batch has given."""

    def remove(self) -> None:
        """Delete the parts, once the whole stands; no error when there are none."""
        durable.remove_tree(self.directory)

    def _write_bytes(self, batch: int, content: bytes) -> None:
        durable.write_bytes(self._path(batch), content)

    def _read_bytes(self, batch: int, needed: int) -> bytes:
        """The first bytes of a part; CorruptError when it has fewer."""
        with self._path(batch).open("rb") as file:
            content = file.read(needed)
        if len(content) < needed:
            raise CorruptError(
                f"{self._path(batch)} is {len(content)} bytes, needed are {needed}",
                remedy="delete it, then give the same command again: only that batch is computed anew",
            )
        return content

    def _held_bytes(self, batch: int) -> int:
        """The length of a part, -1 when it is not there."""
        try:
            return self._path(batch).stat().st_size
        except FileNotFoundError:
            return -1

    def _path(self, batch: int) -> Path:
        return self.directory / f"batch-{batch:06d}.bin"
