"""An average that a run did not store: from which EMA snapshots it comes, and what to say of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from diffcli.errors import MissingError
from diffcli.records.samples import PostHocAverage
from diffcli.registry.create import Run
from diffcli.training import checkpoints, ema_snapshots
from diffcli.training.ema_snapshots import Reconstruction

# of the profile; with more, the average is a rough likeness of the one asked for
_GOOD_RELATIVE_ERROR = 0.05


def find_reconstruction(run: Run, *, std: float, step: int | None) -> Reconstruction:
    """How to have the average of that width at a step that has a snapshot or a checkpoint.

    step: None for the newest good snapshot's. Raises MissingError and CorruptError as
    `ema_snapshots.find_reconstruction`.
    """
    snapshots = run.paths.ema_snapshots
    present = checkpoints.steps_present(snapshots)
    known = (*present, *checkpoints.steps_present(run.paths.checkpoints))
    # of a run without any snapshot there is more to say than this
    if step is not None and present and step not in known:
        raise MissingError(
            f"there is neither an EMA snapshot nor a checkpoint of step {step}",
            where=f"snapshots: {_listed(present)}",
        )
    return ema_snapshots.find_reconstruction(snapshots, std=std, step=step)


def provenance(found: Reconstruction) -> PostHocAverage:
    """The record of it."""
    return PostHocAverage(
        std=found.target.std,
        snapshot_steps=found.steps,
        snapshot_stds=found.stds,
        # the digits beyond are rounding, which differs between machines
        predicted_relative_error=float(f"{found.relative_error:.3g}"),
    )


def remarks(run: Run, found: Reconstruction, *, newest: bool) -> tuple[str, ...]:
    """What a user should know of it; newest: no step was asked for."""
    return tuple(_remarks(run, found, newest=newest))


def _remarks(run: Run, found: Reconstruction, *, newest: bool) -> Iterator[str]:
    for rejected in found.rejected:
        yield f"warning: an EMA snapshot is damaged and left out: {rejected.what}"
    target, error = found.target, found.relative_error
    source = (
        f"from {len(found.terms)} stored averages of widths {_listed(found.stds)}: predicted relative error"
        f" {100 * error:.2g} %"
    )
    stored = found.terms[0].profile == target
    yield f"EMA of width {target.std} at step {target.step}, {'as it was stored' if stored else source}"
    checkpoint = max(checkpoints.steps_present(run.paths.checkpoints), default=0)
    if newest and checkpoint > target.step:
        yield f"note: that is the newest EMA snapshot; the newest checkpoint is of step {checkpoint}"
    if error > _GOOD_RELATIVE_ERROR:
        yield f"warning: that error is large; {_advice(found)}"


def _advice(found: Reconstruction) -> str:
    """What would give a smaller error."""
    newest_used, target = found.steps[0], found.target
    if newest_used != target.step:
        return f"--checkpoint {newest_used} is the step of a snapshot"
    if not found.stds[0] <= target.std <= found.stds[-1]:
        return f"widths from {found.stds[0]} to {found.stds[-1]}, or near them, fit better"
    return "more frequent snapshots (training.ema_snapshot_every) give a better fit"


def _listed(numbers: Iterable[float]) -> str:
    return ", ".join(str(number) for number in numbers)
