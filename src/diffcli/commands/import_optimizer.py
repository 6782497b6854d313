"""What an optimizer's file is to the run that it goes on as: its moments, and how its settings differ."""

from __future__ import annotations

import math
from collections.abc import Iterator

from diffcli.config.sections import RunConfig, TrainingConfig
from diffcli.interchange.openai_names import from_published
from diffcli.interchange.original_optimizer import GroupSettings, OriginalMoments
from diffcli.training.foreign_state import ForeignMoments
from diffcli.training.learning_rate import learning_rate

# the original works with float64, as we do, but not in the same order
_TOLERANCE = 1e-6


def moments_under_our_names(found: OriginalMoments, config: RunConfig) -> ForeignMoments:
    """The moments as a checkpoint of the run keeps them."""
    return ForeignMoments(
        updates=found.updates,
        exp_avg=from_published(found.exp_avg, config),
        exp_avg_sq=from_published(found.exp_avg_sq, config),
    )


def differing_settings(found: OriginalMoments, config: RunConfig, step: int) -> Iterator[str]:
    """Warnings where the file says another rate or decay than the run has at its step."""
    for group in dict.fromkeys(found.groups):
        yield from _of_rate(group, config.training, step)
        yield from _of_decay(group, config.training)


def _of_rate(group: GroupSettings, training: TrainingConfig, step: int) -> Iterator[str]:
    theirs, ours = group.learning_rate, learning_rate(training, step)
    # guided-diffusion anneals after a step, and the last file of a training is counted one step further
    usual = (ours, learning_rate(training, max(0, step - 1)))
    if theirs is None or any(math.isclose(theirs, rate, rel_tol=_TOLERANCE) for rate in usual):
        return
    said = f"warning: the optimizer's file has learning rate {theirs:.6g}, the run {ours:.6g} at step {step}"
    if theirs > 0 and ours > 0:
        yield f"{said}: to take it over, import with --set training.lr={theirs * training.lr / ours:.9g}"
    else:
        yield f"{said}: see training.lr and training.lr_anneal_steps"


def _of_decay(group: GroupSettings, training: TrainingConfig) -> Iterator[str]:
    theirs, ours = group.weight_decay, training.weight_decay
    if theirs is not None and not math.isclose(theirs, ours, rel_tol=_TOLERANCE):
        yield (
            f"warning: the optimizer's file has weight decay {theirs:.6g}, the run {ours:.6g}: "
            f"to take it over, import with --set training.weight_decay={theirs:.9g}"
        )
