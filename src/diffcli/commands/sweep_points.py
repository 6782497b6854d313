"""What is drawn at each point of a sweep, found and checked before the first image is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from diffcli.commands.post_hoc_average import find_reconstruction
from diffcli.commands.sampling_request import SampleRequest, SamplingOrder, find_order
from diffcli.commands.sweep_axes import settings_text, spanned
from diffcli.commands.weights import require_weights, weights_name
from diffcli.errors import UsageError
from diffcli.records.sweeps import AxisName, SweepAxis, SweepSettings
from diffcli.registry.create import Run
from diffcli.training import checkpoints

_OPTION = "--sweep"
# settings that a point gives and an override could give as well
_OF_SETTINGS: tuple[tuple[AxisName, str], ...] = (
    ("steps", "sampling.steps"),
    ("solver", "sampling.solver"),
    ("eta", "sampling.eta"),
    ("ema", "sampling.ema"),
)
_ETA_REMARK = "eta is noise of DDIM: at the points of ancestral sampling it is left out"
_CLASS_REMARK = "cfg 0 draws without classes: at these points --class is left out"


@dataclass(frozen=True, kw_only=True)
class PlannedPoint:
    """Where a point lies, and how its samples are drawn."""

    settings: SweepSettings
    order: SamplingOrder

    @property
    def sampling(self) -> SampleRequest:
        """The request that says so."""
        return self.order.request


@dataclass(frozen=True, kw_only=True)
class PlannedSweep:
    """All points, each once; remarks: which settings mean nothing where, and are left out there."""

    points: tuple[PlannedPoint, ...]
    remarks: tuple[str, ...]


def planned_sweep(axes: Sequence[SweepAxis], sampling: SampleRequest) -> PlannedSweep:
    """The points that axes span over a request for samples.

    Errors: those of `find_order` at any point, and UsageError for what is given beside its axis.
    """
    _check_overrides(axes, sampling)
    points: dict[SweepSettings, PlannedPoint] = {}
    remarks: list[str] = []
    for settings in spanned(axes):
        try:
            point = _planned(settings, sampling, remarks)
        except UsageError as error:
            error.where = error.where or f"{_OPTION}, at {settings_text(settings)}"
            raise
        points.setdefault(point.settings, point)
    found = tuple(points.values())
    if _ETA_REMARK in remarks and all(point.sampling.eta is None for point in found):
        raise UsageError(
            "eta is noise of DDIM, and no point of the sweep is of DDIM",
            where=_OPTION,
            remedy="add solver=ddim, or leave eta out",
        )
    return PlannedSweep(points=found, remarks=tuple(dict.fromkeys(remarks)))


def pinned_checkpoint(run: Run, sampling: SampleRequest) -> int:
    """The step whose weights all points use, also if the run is trained on meanwhile.

    Errors: those of `newest_good` and `find_reconstruction`.
    """
    if sampling.checkpoint is not None:
        return sampling.checkpoint
    if sampling.ema_std is not None:
        return find_reconstruction(run, std=sampling.ema_std, step=None).target.step
    return checkpoints.newest_good(run.paths.checkpoints).step


def check_weights(planned: PlannedSweep, run: Run, step: int) -> None:
    """MissingError or CorruptError unless a checkpoint has the weights of every point."""
    if any(point.sampling.ema_std is not None for point in planned.points):
        return
    directory = checkpoints.at_step(run.paths.checkpoints, step).directory
    for point in planned.points:
        require_weights(directory, weights_name(point.order.config, point.order.config.sampling.ema))


def _check_overrides(axes: Sequence[SweepAxis], sampling: SampleRequest) -> None:
    paths = [override.partition("=")[0].strip() for override in sampling.overrides]
    for axis in axes:
        for name, path in _OF_SETTINGS:
            if name == axis.name and path in paths:
                raise UsageError(
                    f"--sweep {name} and --set {path} exclude each other",
                    where=_OPTION,
                    remedy="leave one of them out",
                )


def _planned(settings: SweepSettings, sampling: SampleRequest, remarks: list[str]) -> PlannedPoint:
    """A point without what means nothing there, which is added to the remarks."""
    request = _request(settings, sampling)
    if request.guidance.cfg == 0 and request.classes is not None:
        remarks.append(_CLASS_REMARK)
        request = dataclasses.replace(request, classes=None)
    if request.eta is not None:
        order = find_order(dataclasses.replace(request, eta=None))
        if order.config.sampling.solver != "ddim":
            remarks.append(_ETA_REMARK)
            return PlannedPoint(settings=dataclasses.replace(settings, eta=None), order=order)
    return PlannedPoint(settings=settings, order=find_order(request))


def _request(settings: SweepSettings, sampling: SampleRequest) -> SampleRequest:
    """The request for the samples of a point: what its axes say, and for the rest what all have."""
    overrides = list(sampling.overrides)
    if settings.steps is not None:
        overrides.append(f"sampling.steps={settings.steps}")
    if settings.solver is not None:
        overrides.append(f"sampling.solver={settings.solver}")
    asked, guidance = sampling, sampling.guidance
    return dataclasses.replace(
        sampling,
        overrides=tuple(overrides),
        eta=asked.eta if settings.eta is None else settings.eta,
        seed=asked.seed if settings.seed is None else settings.seed,
        ema=asked.ema if settings.ema is None else settings.ema,
        guidance=dataclasses.replace(
            guidance,
            cfg=guidance.cfg if settings.cfg is None else settings.cfg,
            scale=guidance.scale if settings.guidance is None else settings.guidance,
        ),
    )
