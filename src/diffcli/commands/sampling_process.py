"""One of the processes that sample together: its device, its user's signals, and the screen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from diffcli.commands.interruption import StopRequests
from diffcli.errors import InterruptedRunError
from diffcli.workers import DeviceChoice, Workers, WorkersSettings


class SampleProgress(Protocol):
    """Draws the progress of sampling; only the first process calls it."""

    def begin(self, verb: str) -> None:
        """What is counted from here on, such as `encoding`."""

    def __call__(self, done: int, total: int) -> None:
        """So many of all images are drawn."""

    def notice(self, text: str) -> None:
        """A remark; may come from another thread."""


@dataclass(frozen=True, kw_only=True)
class SamplingProcess:
    """This process among those that sample."""

    workers: Workers
    stop: StopRequests
    progress: SampleProgress

    def tell(self, remark: str) -> None:
        """A remark to the user, from the first process only."""
        if self.workers.is_first:
            self.progress.notice(remark)

    def begin(self, verb: str) -> None:
        """A new stretch of work, told by the first process only."""
        if self.workers.is_first:
            self.progress.begin(verb)

    def heed_stop(self, state: str) -> None:
        """InterruptedRunError once a signal asks to stop; state: of what is done so far."""
        if self.stop.signal_number:
            raise InterruptedRunError(
                f"stopped; {state}",
                signal_number=self.stop.signal_number,
                remedy="the same command goes on from there",
            )

    def tell_progress(self, done: int, total: int) -> None:
        """How far all processes are together, from the first only."""
        if self.workers.is_first:
            self.progress(done, total)


@contextlib.contextmanager
def sampling_process(
    device: DeviceChoice, threads: int | None, progress: SampleProgress, *, gradients: bool = False
) -> Iterator[SamplingProcess]:
    """Join the other processes, if there are any, for the block; main thread only.

    gradients: whether they are worked out, which repeats on a GPU only with deterministic kernels.
    """
    with StopRequests() as stop:
        workers = Workers(
            WorkersSettings(device=device, precision="fp32", threads=threads, deterministic=gradients)
        )
        process = SamplingProcess(workers=workers, stop=stop, progress=progress)
        stop.on_request = lambda _number: process.tell("stopping after this step")
        with workers.peer_failures("command", "then start the same command again"):
            yield process
        workers.close()
