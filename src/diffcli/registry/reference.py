"""RUN or RUN@STEP, as a command line names a run or one of its checkpoints."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WITH_STEP = re.compile(r"(?P<run>.+)@(?P<step>[0-9]{1,18})", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class CheckpointReference:
    """What names a run (see `resolve`), and the step of a checkpoint unless the run itself is meant."""

    run: str
    step: int | None


def checkpoint_reference(text: str) -> CheckpointReference:
    """`run-3@5000` is the checkpoint of step 5000 of run-3; without a number after the last @, a run."""
    match = _WITH_STEP.fullmatch(text)
    if match is not None:
        return CheckpointReference(run=match.group("run"), step=int(match.group("step")))
    return CheckpointReference(run=text, step=None)
