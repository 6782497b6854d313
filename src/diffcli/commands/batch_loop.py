"""Many batches, each a chain of network calls: who computes which, how far they are, and a clean stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from diffcli.commands.sampling_process import SamplingProcess
from diffcli.errors import InterruptedRunError
from diffcli.parts import BatchParts

Step = TypeVar("Step")
Content = TypeVar("Content")


def compute_missing(
    parts: BatchParts[Content],
    *,
    steps: int,
    steps_of: Callable[[int], Iterator[Step]],
    content: Callable[[Step], Content],
    process: SamplingProcess,
    told_per_image: int = 1,
) -> None:
    """Compute the batches that are missing, each in one of the processes, which all come back together.

    steps_of gives the steps of a batch, `steps` of them; content: what is kept of the last; told_per_image:
    what a finished image counts as progress. Raises InterruptedRunError in all processes once one of them was
    asked to stop, and StorageError when they do not write to the same place.
    """
    plan, workers, stop = parts.plan, process.workers, process.stop
    # the first looks for all, since the others may have written some before a late one comes to look
    missing = workers.first_decides(parts.missing)
    own = missing[workers.rank :: workers.world_size]
    in_all = plan.count * told_per_image
    left = sum(len(plan.images(batch)) for batch in missing) * told_per_image

    def tell(share: float) -> None:
        """So much of what was missing is done: all processes are about as far as this one."""
        process.tell_progress(in_all - left + int(share * left), in_all)

    tell(0.0)
    for place, batch in enumerate(own):
        for taken, step in enumerate(steps_of(batch), start=1):
            if stop.signal_number:
                break
            tell((place + taken / steps) / len(own))
            if taken == steps:
                parts.write(batch, content(step))
        if stop.signal_number:
            break
    # every process has come to its end or its stop: one signal stops them all
    signal_number = workers.largest(stop.signal_number)
    if signal_number:
        raise InterruptedRunError(
            f"stopped with {plan.batches - len(parts.missing())} of {plan.batches} batches done",
            signal_number=signal_number,
            remedy="the same command goes on from there",
        )
    workers.first_decides(parts.await_all)
    tell(1.0)
