"""Records of evaluations as `eval` leaves them under a run, without an evaluation."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from diffcli.records.evaluations import (
    EVALUATION_SCHEMA,
    EvaluatedImages,
    EvaluatedModel,
    EvaluationConditions,
    Likelihood,
    LikelihoodCurve,
    LikelihoodEvaluation,
    LikelihoodSettings,
)
from diffcli.records.image_evaluations import (
    IMAGE_EVALUATION_SCHEMA,
    EvaluatedSet,
    ExtractorFacts,
    ImageEvaluation,
    Metric,
    MetricSettings,
    MetricSpread,
    SamplingFacts,
)
from diffcli.registry.create import Run
from diffcli.registry.json_records import write_record

_BEGINNING = datetime(2026, 11, 1, tzinfo=UTC)


def keep(run: Run, name: str, evaluation: ImageEvaluation | LikelihoodEvaluation) -> Path:
    """Write a record under a run."""
    schema = EVALUATION_SCHEMA if evaluation.kind == "nll" else IMAGE_EVALUATION_SCHEMA
    run.paths.evaluations.mkdir(exist_ok=True)
    path = run.paths.evaluations / f"{name}.json"
    write_record(path, evaluation, schema=schema)
    return path


def with_change(record: Any, path: str, value: object) -> Any:
    """The record with another value at a dotted path."""
    name, _, rest = path.partition(".")
    return dataclasses.replace(
        record, **{name: with_change(getattr(record, name), rest, value) if rest else value}
    )


def fid(
    value: float, *, step: int = 500, samples: int = 10_000, steps: int = 250, minutes: int = 0
) -> ImageEvaluation:
    """FID, Inception Score and recall, begun so many minutes after the first evaluation ever."""
    spread = MetricSpread(over="parts", count=2, deviation=0.1)
    return ImageEvaluation(
        fingerprint="f" * 64,
        model=EvaluatedModel(run="run-1", checkpoint=step, weights="ema-0.9999"),
        sampling=SamplingFacts(
            fingerprint="5" * 64,
            solver="ancestral",
            steps=steps,
            model_calls=steps,
            eta=None,
            clip=True,
            seed=0,
            classes=None,
            classifier=None,
            cfg=None,
            precision="fp32",
            seconds=60.0,
        ),
        samples=_set("samples/a/samples.npz", samples),
        reference=_set("data/cifar10/train", 50_000),
        extractor=ExtractorFacts(name="inception", digest="e" * 64, dimensions=2048, location=None),
        settings=MetricSettings(
            seed=0,
            distances="float32",
            neighbours=3,
            density_neighbours=5,
            score_split=5000,
            kernel_subsets=100,
            kernel_subset_size=1000,
            reference_rows=10_000,
        ),
        conditions=_conditions(minutes),
        metrics=(
            Metric(name="fid", value=value, samples=samples, references=50_000),
            Metric(name="is", value=9.5, samples=samples, references=None, spread=spread),
            Metric(name="recall", value=0.5, samples=samples, references=10_000),
        ),
        skipped=(),
        warnings=("the last part is short",),
    )


def bits_per_dim(
    value: float, *, step: int = 500, images: int = 10_000, minutes: int = 0
) -> LikelihoodEvaluation:
    """The bound over a whole chain."""
    curve = LikelihoodCurve(
        timesteps=(0, 1), vb_bits_per_dim=(1.0, 2.0), x_start_mse=(0.1, 0.2), eps_mse=(0.3, 0.4)
    )
    return LikelihoodEvaluation(
        model=EvaluatedModel(run="run-1", checkpoint=step, weights="ema-0.9999"),
        images=EvaluatedImages(
            location=Path("data/cifar10/test"),
            split="test",
            count=images,
            total=10_000,
            content_hash="c" * 64,
            weak_hash=False,
            trained_on=False,
            name="cifar10",
        ),
        settings=LikelihoodSettings(seed=0, clip=True, timesteps=4000, chain_timesteps=4000, full_chain=True),
        conditions=_conditions(minutes),
        likelihood=Likelihood(
            images=images,
            bits_per_dim=value,
            standard_error=0.01,
            prior_bits_per_dim=1e-5,
            vb_bits_per_dim=value,
            curve=curve,
        ),
    )


def _set(location: str, count: int) -> EvaluatedSet:
    return EvaluatedSet(
        kind="archive",
        location=Path(location),
        count=count,
        total=50_000,
        height=32,
        width=32,
        channels=3,
        content_hash="d" * 64,
        weak_hash=False,
    )


def _conditions(minutes: int) -> EvaluationConditions:
    return EvaluationConditions(
        batch_size=64,
        device="cpu",
        threads=1,
        precision="fp32",
        diffcli="0.6.0",
        git_commit=None,
        python="3.11.7",
        torch="2.13.0",
        numpy="2.0",
        platform="Linux",
        command_line=("diffcli", "eval", "run-1"),
        started_at=_BEGINNING + timedelta(minutes=minutes),
        seconds=3.0,
    )
