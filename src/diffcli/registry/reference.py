"""RUN or RUN@STEP, as a command line names a run or one of its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CheckpointReference:
    """What names a run (see `resolve`), and the step of a checkpoint unless the run itself is meant."""

    run: str
    step: int | None


def checkpoint_reference(text: str) -> CheckpointReference:
    """`run-3@5000` is the checkpoint of step 5000 of run-3; without a number after the last @, a run."""
    run, _, step = text.rpartition("@")
    if run and step.isascii() and step.isdecimal():
        return CheckpointReference(run=run, step=int(step))
    return CheckpointReference(run=text, step=None)
