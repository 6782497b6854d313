"""The picture of a sweep, where matplotlib is installed."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from diffcli.plots.sweep_curve import draw_sweep
from diffcli.records.evaluations import EvaluationConditions
from diffcli.records.image_evaluations import ExtractorFacts, Metric
from diffcli.records.sweeps import MetricOverSeeds, SeedSpread, Sweep, SweepAxis, SweepPoint, SweepSettings

pytest.importorskip("matplotlib")

CONDITIONS = EvaluationConditions(
    batch_size=1,
    device="cpu",
    threads=1,
    precision="fp32",
    diffcli="0",
    git_commit=None,
    python="3",
    torch="2",
    numpy="2",
    platform="",
    command_line=(),
    started_at=datetime.now(UTC),
    seconds=0.0,
)


def point(value, model_calls=10, **settings):
    metrics = () if value is None else (Metric(name="fid", value=value, samples=9, references=9),)
    return SweepPoint(
        settings=SweepSettings(**settings),
        evaluation="one",
        fingerprint="",
        model_calls=model_calls,
        seconds_per_image=None,
        processes=1,
        metrics=metrics,
    )


def sweep(*points, axes, spreads=()):
    return Sweep(
        fingerprint="",
        run="run-1",
        checkpoint=1,
        axes=tuple(SweepAxis(name=name, values=()) for name in axes),
        samples=9,
        reference=None,
        extractor=ExtractorFacts(name="inception", digest="", dimensions=2048, location=None),
        conditions=CONDITIONS,
        points=points,
        spreads=spreads,
        remarks=(),
        skipped=(),
        warnings=(),
    )


BY_CALLS = sweep(
    *(
        point(value, steps, steps=steps, solver=solver)
        for solver, values in (("ancestral", (90.0, 30.0, 4.0)), ("ddim", (20.0, 9.0, 5.0)))
        for steps, value in zip((10, 50, 250), values, strict=True)
    ),
    axes=("solver", "steps"),
)


def pixels(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("L"))


def drawn(tmp_path, found):
    draw_sweep(tmp_path / "drawn.png", found, title="run-1")
    return pixels(tmp_path / "drawn.png")


def test_the_picture_shows_the_points(tmp_path):
    other = dataclasses.replace(BY_CALLS, points=(*BY_CALLS.points[:-1], point(60.0, 250, solver="ddim")))
    one, two = drawn(tmp_path, BY_CALLS), drawn(tmp_path, other)
    assert one.shape == two.shape
    assert (one != two).any()
    assert [path.name for path in tmp_path.iterdir()] == ["drawn.png"]


def test_the_order_of_the_points_does_not_matter(tmp_path):
    turned = dataclasses.replace(BY_CALLS, points=(*BY_CALLS.points[2::-1], *BY_CALLS.points[3:]))
    assert np.array_equal(drawn(tmp_path, BY_CALLS), drawn(tmp_path, turned))


def test_seeds_are_drawn_as_their_mean_with_its_deviation(tmp_path):
    def over_seeds(deviation):
        spreads = tuple(
            SeedSpread(
                settings=SweepSettings(steps=steps),
                seeds=(0, 1),
                model_calls=steps,
                seconds_per_image=None,
                metrics=(MetricOverSeeds(name="fid", mean=mean, deviation=deviation, count=2),),
            )
            for steps, mean in ((10, 30.0), (50, 4.0))
        )
        points = [
            point(value, steps, steps=steps, seed=seed)
            for steps, value in ((10, 30.0), (50, 4.0))
            for seed in (0, 1)
        ]
        return sweep(*points, axes=("seed", "steps"), spreads=spreads)

    assert (drawn(tmp_path, over_seeds(0.5)) != drawn(tmp_path, over_seeds(5.0))).any()


@pytest.mark.parametrize(
    "odd",
    [
        sweep(point(3.0, eta=0.0, solver="ddim"), point(2.0, eta=1.0, solver="ddim"), axes=("eta", "solver")),
        sweep(point(3.0, solver="ancestral"), axes=("solver",)),
        sweep(point(None, 10, steps=10), point(math.nan, 20, steps=20), axes=("steps",)),
        sweep(*(point(float(steps), steps, steps=steps) for steps in range(1, 30)), axes=("steps",)),
    ],
    ids=["numbers", "one point", "not a number", "many"],
)
def test_any_sweep_can_be_drawn(tmp_path, odd):
    assert drawn(tmp_path, odd).std() > 1
