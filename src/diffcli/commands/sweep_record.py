"""The record of a sweep: its points side by side, their spread over seeds, its name, and what is there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from diffcli.commands.sweep_points import PlannedSweep
from diffcli.commands.taken_names import name_taken, sweep_in
from diffcli.evaluation.spread import spread_of
from diffcli.records.evaluations import EvaluationConditions
from diffcli.records.image_evaluations import ImageEvaluation, ImageEvaluationResult, SamplingFacts
from diffcli.records.sweeps import (
    MetricOverSeeds,
    SeedSpread,
    Sweep,
    SweepAxis,
    SweepPoint,
    SweepSettings,
)
from diffcli.registry.json_records import encode

_SHORT = 6


def sweep_of(
    axes: tuple[SweepAxis, ...],
    planned: PlannedSweep,
    results: Sequence[ImageEvaluationResult],
    conditions: EvaluationConditions,
) -> Sweep:
    """The record of a sweep whose points were all evaluated."""
    points = tuple(
        _point(point.settings, result) for point, result in zip(planned.points, results, strict=True)
    )
    evaluations = [result.evaluation for result in results]
    first = evaluations[0]
    assert first.model is not None, "the samples of a run have its model"
    return Sweep(
        fingerprint=_fingerprint(points),
        run=first.model.run,
        checkpoint=first.model.checkpoint,
        axes=axes,
        samples=first.samples.count,
        reference=first.reference,
        extractor=first.extractor,
        conditions=conditions,
        points=points,
        spreads=_spreads(points) if any(axis.name == "seed" for axis in axes) else (),
        remarks=planned.remarks,
        skipped=tuple(dict.fromkeys(skipped for each in evaluations for skipped in each.skipped)),
        warnings=tuple(dict.fromkeys((*_of_points(evaluations), *_of_time(points)))),
    )


def default_name(sweep: Sweep) -> str:
    """What matters most of it, and at the end a digest of the rest."""
    axes = "-".join(axis.name for axis in sweep.axes)
    return (
        f"sweep-{axes}-{sweep.extractor.name}-step-{sweep.checkpoint:06d}"
        f"-n-{sweep.samples}-{sweep.fingerprint[:_SHORT]}"
    )


def recorded(path: Path, wanted: Sweep, *, force: bool) -> Sweep | None:
    """The sweep if exactly this one is there; UsageError when another record has its place, unless forced."""
    if force or not path.exists():
        return None
    there = sweep_in(path)
    if there is not None and there.fingerprint == wanted.fingerprint:
        return there
    raise name_taken(path)


def _point(settings: SweepSettings, result: ImageEvaluationResult) -> SweepPoint:
    sampling = result.evaluation.sampling
    assert sampling is not None, "the samples of a run have an archive's record"
    return SweepPoint(
        settings=settings,
        evaluation=result.name,
        fingerprint=result.evaluation.fingerprint,
        model_calls=sampling.model_calls,
        seconds_per_image=_seconds_per_image(sampling, result.evaluation.samples.total),
        processes=sampling.world_size,
        metrics=result.evaluation.metrics,
    )


def _seconds_per_image(sampling: SamplingFacts, images: int) -> float | None:
    """Of an archive of so many images; None unless a single call has drawn all of them."""
    return sampling.seconds / images if sampling.drawn == images else None


def _spreads(points: Sequence[SweepPoint]) -> tuple[SeedSpread, ...]:
    """Of all points that lie at the same place but for the seed, in the order of the first of each."""
    places = dict.fromkeys(dataclasses.replace(point.settings, seed=None) for point in points)
    return tuple(
        _spread(place, [point for point in points if dataclasses.replace(point.settings, seed=None) == place])
        for place in places
    )


def _spread(place: SweepSettings, points: Sequence[SweepPoint]) -> SeedSpread:
    seconds = [point.seconds_per_image for point in points if point.seconds_per_image is not None]
    names = dict.fromkeys(metric.name for point in points for metric in point.metrics)
    return SeedSpread(
        settings=place,
        seeds=tuple(point.settings.seed for point in points if point.settings.seed is not None),
        model_calls=points[0].model_calls,
        seconds_per_image=spread_of(seconds).mean if len(seconds) == len(points) else None,
        metrics=tuple(_over_seeds(name, points) for name in names),
    )


def _over_seeds(name: str, points: Sequence[SweepPoint]) -> MetricOverSeeds:
    values = [metric.value for point in points for metric in point.metrics if metric.name == name]
    found = spread_of(values)
    return MetricOverSeeds(name=name, mean=found.mean, deviation=found.std, count=found.count)


def _of_points(evaluations: Iterable[ImageEvaluation]) -> tuple[str, ...]:
    return tuple(warning for evaluation in evaluations for warning in evaluation.warnings)


def _of_time(points: Iterable[SweepPoint]) -> tuple[str, ...]:
    """Whether the times are of the same number of processes."""
    processes = sorted({point.processes or 1 for point in points if point.seconds_per_image is not None})
    if len(processes) < 2:
        return ()
    return (
        f"the archives were drawn by {processes[0]} to {processes[-1]} processes: their times do not compare",
    )


def _fingerprint(points: Sequence[SweepPoint]) -> str:
    facts = [(encode(point.settings), point.fingerprint) for point in points]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
