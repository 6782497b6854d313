"""Which checkpoints stay when a new one is saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diffcli.config.sections import TrainingConfig

# whatever is asked for: the newest may turn out to be damaged
_AT_LEAST = 2


@dataclass(frozen=True, kw_only=True)
class Retention:
    """The newest `keep_last` checkpoints, those at multiples of `keep_every` steps (0: none), pinned ones.

    pinned: asked before each deletion, because a pin may be set while a run trains; None keeps them all.
    """

    keep_last: int
    keep_every: int
    pinned: Callable[[], frozenset[int] | None]

    def superfluous(self, steps: Sequence[int]) -> tuple[int, ...]:
        """The steps, of those of all checkpoints in ascending order, whose checkpoints may go."""
        pinned = self.pinned()
        if pinned is None:
            return ()
        older = steps[: -max(self.keep_last, _AT_LEAST)]
        return tuple(step for step in older if step not in pinned and not self._is_milestone(step))

    def _is_milestone(self, step: int) -> bool:
        return self.keep_every > 0 and step % self.keep_every == 0


def retention_of(config: TrainingConfig, pinned: Callable[[], frozenset[int] | None]) -> Retention:
    """The retention that a configuration asks for."""
    return Retention(keep_last=config.keep_last, keep_every=config.keep_every, pinned=pinned)
