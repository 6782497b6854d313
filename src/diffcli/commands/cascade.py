"""Draw images from a run and enlarge them with others, one after the other."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from diffcli.commands.sample import conditions_of
from diffcli.commands.sampling_job import draw_archive
from diffcli.commands.sampling_process import SampleProgress, sampling_process
from diffcli.commands.sampling_request import SampleRequest, SamplingOrder, find_order
from diffcli.commands.weights import require_weights_of
from diffcli.errors import UsageError
from diffcli.records.samples import CascadeResult, SampleResult
from diffcli.registry.reference import checkpoint_reference

_OPTION = "--then"


@dataclass(frozen=True, kw_only=True)
class CascadeRequest:
    """What `diffcli sample --then` was asked for: how to draw the images, and which runs enlarge them.

    then: each as RUN or RUN@STEP; steps, ddim, batch_size: of every run that enlarges, None for its own.
    """

    base: SampleRequest
    then: tuple[str, ...]
    steps: str | None
    ddim: int | None
    batch_size: int | None


def cascade(request: CascadeRequest, progress: SampleProgress) -> CascadeResult:
    """Draw the archives of all stages, each as `sample` alone would, going on from what is there.

    Raises InterruptedRunError after a clean stop, and UsageError before anything is drawn when the runs do
    not fit together.
    """
    base = find_order(_stage(request, request.base, place=1))
    enlarging = [
        find_order(_stage(request, _enlarging(request, reference), place=place))
        for place, reference in enumerate(request.then, start=2)
    ]
    for before, after in pairwise([base, *enlarging]):
        _check_fit(before, after)
    conditions = conditions_of(base)
    with sampling_process(
        request.base.device,
        request.base.threads,
        progress,
        gradients=base.guidance.classifier is not None,
    ) as process:
        for order in enlarging:
            process.workers.first_decides(partial(_require_weights, order))
        process.begin(f"drawing from {base.run.id}")
        stages = [draw_archive(base, conditions, process)]
        for order in enlarging:
            fed = _fed(order, stages[-1])
            process.begin(f"enlarging by {order.run.id}")
            stages.append(draw_archive(fed, conditions_of(fed), process))
    return CascadeResult(stages=tuple(stages))


def _stage(request: CascadeRequest, stage: SampleRequest, *, place: int) -> SampleRequest:
    """A stage with a place of its own to write to."""
    out = request.base.out
    return stage if out is None else dataclasses.replace(stage, out=out / f"stage-{place}")


def _enlarging(request: CascadeRequest, reference: str) -> SampleRequest:
    """What `sample RUN --low-res ARCHIVE` would be asked for, but for the archive, which is still to come."""
    base, run = request.base, checkpoint_reference(reference)
    return SampleRequest(
        run=run.run,
        count=None,
        steps=request.steps,
        ddim=request.ddim,
        eta=None,
        overrides=(),
        ema=None,
        checkpoint=run.step,
        classes=None,
        seed=base.seed,
        batch_size=request.batch_size,
        noise=None,
        low_res=None,
        name=base.name,
        out=None,
        device=base.device,
        precision=base.precision,
        threads=base.threads,
        force=base.force,
        runs_home=base.runs_home,
        command_line=base.command_line,
    )


def _fed(order: SamplingOrder, before: SampleResult) -> SamplingOrder:
    """The order with the archive of the stage before it."""
    request = dataclasses.replace(order.request, count=before.count, low_res=before.archive)
    return dataclasses.replace(order, request=request)


def _require_weights(order: SamplingOrder) -> None:
    require_weights_of(order.run, order.config, step=order.request.checkpoint, ema=order.config.sampling.ema)


def _check_fit(before: SamplingOrder, after: SamplingOrder) -> None:
    """UsageError unless what one stage draws is what the next one enlarges, and tells it the classes."""
    drawn, data = before.config.data, after.config.data
    if after.config.model.kind != "superres":
        raise UsageError(
            f"{after.run.id} enlarges nothing: it is no super-resolution run",
            where=_OPTION,
            remedy="see `diffcli runs show` for what a run was trained on",
        )
    if (drawn.resolution, drawn.channels) != (data.low_resolution, data.channels):
        raise UsageError(
            f"{before.run.id} draws {_size(drawn.resolution, drawn.channels)}, "
            f"and {after.run.id} enlarges {_size(data.low_resolution, data.channels)}",
            where=_OPTION,
            remedy="chain runs whose sizes and channels follow each other",
        )
    classes = before.guidance.config_of_classes(before.config).model.classes
    known = after.config.model.classes
    if known and classes != known:
        raise UsageError(
            f"{after.run.id} is to be told one of {known} classes, "
            f"and {before.run.id} draws {f'{classes} of its own' if classes else 'none'}",
            where=_OPTION,
            remedy="draw first, then enlarge the archive with --low-res and --class",
        )
    names = [order.guidance.class_names(order.run, order.config) for order in (before, after)]
    if known and all(names) and names[0] != names[1]:
        raise UsageError(
            f"the classes of {before.run.id} are not those of {after.run.id}; names and order count",
            where=_OPTION,
            remedy="draw first, then enlarge the archive with --low-res and --class",
        )


def _size(pixels: int, channels: int) -> str:
    return f"{pixels}x{pixels}x{channels}"
