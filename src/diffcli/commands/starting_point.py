"""Where a training begins: the state filled from a checkpoint of its own or of its parent, or as it is."""

from __future__ import annotations

from collections.abc import Callable

from diffcli.commands.opening import OpenedRun, rounding_changes
from diffcli.commands.training_target import TrainingTarget
from diffcli.registry.run_record import Attempt
from diffcli.training.checkpoints import FoundCheckpoint
from diffcli.training.loop import TrainingLoop
from diffcli.training.state import RAW_WEIGHTS, has_moments, restore, start_from, starting_weights

Say = Callable[[str], None]


def fill_state(loop: TrainingLoop, opened: OpenedRun, target: TrainingTarget, say: Say) -> None:
    """Fill the loop's state, and say so, loudly when it is not from the newest checkpoint or from none."""
    source = opened.found or opened.origin
    for rejected in source.rejected if source else ():
        say(f"warning: a newer checkpoint is damaged and not used: {rejected.what}")
    if opened.found is not None:
        _go_on(loop, opened.found, opened, target, say)
        return
    if target.resumed is not None:
        say(f"{opened.run.id} has no checkpoint yet: it starts at step 0 again")
    if opened.origin is not None:
        start_from(loop.state, opened.origin.directory)
        loop.save_start()
        weights = starting_weights(opened.origin.directory)
        which = "" if weights == RAW_WEIGHTS else f": its {weights}, as there are no raw weights"
        say(f"{opened.run.id} starts from {opened.origin.directory}{which}")


def _go_on(
    loop: TrainingLoop, found: FoundCheckpoint, opened: OpenedRun, target: TrainingTarget, say: Say
) -> None:
    workers, run = loop.workers, opened.run.id
    restore(loop.state, found.directory, found.step, rank=workers.rank, world_size=workers.world_size)
    if opened.new_dataset is not None:
        say(
            f"note: {run} was imported: from now on it is trained on {opened.new_dataset.path} "
            f"({opened.new_dataset.count} images); whether it was before is not known"
        )
    if not has_moments(found.directory):
        say("warning: the checkpoint has no moments of the optimizer: they begin at zero")
    if target.request.rollback is not None:
        say(f"{run} goes back to step {found.step}, and on with other random numbers")
        return
    say(f"{run} goes on from step {found.step}")
    if opened.diverged:
        say(
            f"note: {run} diverged, and the same numbers lead there again; "
            "--rollback STEP goes on from a checkpoint with others"
        )


def note_rounding(opened: OpenedRun, attempt: Attempt, say: Say) -> None:
    """Say what makes the last bits differ from those that the attempt before would have come to."""
    changes = rounding_changes(opened.previous, attempt) if opened.previous else ()
    if changes:
        say(f"note: {', '.join(changes)}: the same training, but no longer bit by bit")


def note_features(opened: OpenedRun, attempt: Attempt, say: Say) -> None:
    """Say when samples are compared by other features than in the attempt before."""
    before = opened.previous.samples if opened.previous else None
    if before is None or attempt.samples is None:
        return
    then, now = before.extractor, attempt.samples.extractor
    if then.digest != now.digest:
        say(
            f"note: samples are compared by other features than before ({then.name} -> {now.name}): "
            "numbers of before and from here on do not compare"
        )


def note_repeats(count: int, batch_size: int, say: Say) -> None:
    """Say when there are so few images that a batch holds some of them more than once."""
    if count < batch_size:
        images = "1 image" if count == 1 else f"{count} images"
        say(
            f"note: the dataset has {images}, fewer than the batch of {batch_size}: "
            "each batch holds some more than once"
        )
