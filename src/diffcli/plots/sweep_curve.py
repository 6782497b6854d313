"""The quality at the points of a sweep against the calls of the network, as a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffcli.plots.figures import DOTS_PER_INCH, write_figure
from diffcli.records.sweeps import AxisName, Sweep, SweepSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = (7.0, 4.5)
_MOST_TICKS = 12
_MODEL_CALLS = "model calls per image"
# what may run along the picture where the number of steps does not
_NUMBERS: tuple[AxisName, ...] = ("eta", "cfg", "guidance")


@dataclass(frozen=True, kw_only=True)
class _Mark:
    """A value of the metric; deviation: over seeds, 0 where there is none."""

    at: float
    value: float
    deviation: float


@dataclass(frozen=True, kw_only=True)
class _Place:
    settings: SweepSettings
    model_calls: int
    value: float
    deviation: float


def draw_sweep(path: Path, sweep: Sweep, *, title: str) -> None:
    """Write a PNG of the first metric, a line for each combination of the other axes.

    Against the model calls, on a logarithmic axis, or else against the axis of numbers that there is; where
    the seed is an axis, means with their standard deviation. StorageError when it cannot be written.
    """
    from matplotlib.figure import Figure

    name = next(metric.name for point in sweep.points for metric in point.metrics)
    along = _along(sweep)
    figure = Figure(figsize=_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    panel = figure.subplots()
    for label, marks in _lines(_places(sweep, name), along).items():
        panel.errorbar(
            [mark.at for mark in marks],
            [mark.value for mark in marks],
            yerr=[mark.deviation for mark in marks] if sweep.spreads else None,
            label=label,
            marker="o",
            markersize=4,
            linewidth=1,
            capsize=3,
        )
    if along is None:
        _scale_by_calls(panel, sorted({point.model_calls for point in sweep.points}))
    panel.set_xlabel(_MODEL_CALLS if along is None else along)
    panel.set_ylabel(name)
    panel.set_title(f"{title}, {sweep.samples} samples", fontsize="medium")
    panel.grid(alpha=0.3)
    # a line without a label is the only one
    if panel.get_legend_handles_labels()[1]:
        panel.legend(fontsize="small")
    write_figure(path, figure)


def _scale_by_calls(panel: Axes, calls: Sequence[int]) -> None:
    """A logarithmic axis, its ticks at the numbers of calls unless they are many."""
    panel.set_xscale("log")
    if len(calls) <= _MOST_TICKS:
        panel.set_xticks(calls, labels=[str(count) for count in calls])
        panel.minorticks_off()


def _along(sweep: Sweep) -> AxisName | None:
    """The axis that runs along the picture; None for the model calls."""
    names = [axis.name for axis in sweep.axes]
    if "steps" in names:
        return None
    return next((name for name in names if name in _NUMBERS), None)


def _places(sweep: Sweep, name: str) -> tuple[_Place, ...]:
    """The points that have the metric, or their means over seeds."""
    if sweep.spreads:
        return tuple(
            _Place(
                settings=spread.settings,
                model_calls=spread.model_calls,
                value=metric.mean,
                deviation=metric.deviation or 0.0,
            )
            for spread in sweep.spreads
            for metric in spread.metrics
            if metric.name == name
        )
    return tuple(
        _Place(settings=point.settings, model_calls=point.model_calls, value=metric.value, deviation=0.0)
        for point in sweep.points
        for metric in point.metrics
        if metric.name == name
    )


def _lines(places: Sequence[_Place], along: AxisName | None) -> dict[str, list[_Mark]]:
    """The marks of each line from left to right, by what is said of it."""
    lines: dict[str, list[_Mark]] = {}
    for place in places:
        at = place.model_calls if along is None else getattr(place.settings, along)
        if at is not None:
            mark = _Mark(at=at, value=place.value, deviation=place.deviation)
            lines.setdefault(_label(place.settings, along), []).append(mark)
    return {label: sorted(marks, key=lambda mark: mark.at) for label, marks in lines.items()}


def _label(settings: SweepSettings, along: AxisName | None) -> str:
    others = dataclasses.replace(settings, steps=None, seed=None)
    values = ((field.name, getattr(others, field.name)) for field in dataclasses.fields(others))
    return ", ".join(
        value if name == "solver" else f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values
        if value is not None and name != along
    )
