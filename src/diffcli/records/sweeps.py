"""What `eval --sweep` found out; a file in a run's evals/ is a Sweep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffcli.records.evaluations import EvaluationConditions
from diffcli.records.image_evaluations import EvaluatedSet, ExtractorFacts, Metric, SkippedMetric

SWEEP_SCHEMA = 1

AxisName = Literal["steps", "solver", "eta", "seed", "ema", "cfg", "guidance"]


@dataclass(frozen=True, kw_only=True)
class SweepAxis:
    """One setting of sampling and the values that it takes, as they were typed."""

    name: AxisName
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """Where a point lies; None for what is no axis of the sweep, or means nothing at this point.

    ema: a rate, or first or none; guidance: the scale of the classifier's gradient.
    """

    steps: int | None = None
    solver: str | None = None
    eta: float | None = None
    seed: int | None = None
    ema: str | None = None
    cfg: float | None = None
    guidance: float | None = None


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One evaluation of a sweep, which has a record of its own under that name.

    model_calls: of the network, for each image; seconds_per_image: None where the archive was not drawn in
    one go, by one call; processes: that drew it together, None in older records.
    """

    settings: SweepSettings
    evaluation: str
    fingerprint: str
    model_calls: int
    seconds_per_image: float | None
    processes: int | None
    metrics: tuple[Metric, ...]


@dataclass(frozen=True, kw_only=True)
class MetricOverSeeds:
    """The mean of a metric over `count` seeds and their standard deviation (over n), None of a single one."""

    name: str
    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """The points that differ in nothing but the seed; seconds_per_image: their mean, None unless all have it.

    settings: without a seed.
    """

    settings: SweepSettings
    seeds: tuple[int, ...]
    model_calls: int
    seconds_per_image: float | None
    metrics: tuple[MetricOverSeeds, ...]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Quality against model calls and time, at every point that the axes span, in the order of the axes.

    fingerprint: of all points; samples: of each; spreads: () unless the seed is an axis; remarks: which
    settings were left out where, and why; skipped, warnings: of any point, each once.
    """

    kind: Literal["sweep"] = "sweep"
    fingerprint: str
    run: str
    checkpoint: int
    axes: tuple[SweepAxis, ...]
    samples: int
    reference: EvaluatedSet | None
    extractor: ExtractorFacts
    conditions: EvaluationConditions
    points: tuple[SweepPoint, ...]
    spreads: tuple[SeedSpread, ...]
    remarks: tuple[str, ...]
    skipped: tuple[SkippedMetric, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """A sweep, its name, its record, and the picture beside it, None when it could not be drawn.

    already_there: the record was; is_first: of several processes only the first speaks.
    """

    name: str
    path: Path
    picture: Path | None
    sweep: Sweep
    already_there: bool
    is_first: bool
