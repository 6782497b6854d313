"""What `runs show` says of each evaluation: its numbers, and what they are of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from diffcli.console.evaluations import likelihood_condition_rows, likelihood_rows
from diffcli.console.image_evaluations import metric_cells
from diffcli.console.numbers import duration_text
from diffcli.records.evaluations import EvaluatedModel, EvaluationConditions, LikelihoodEvaluation
from diffcli.records.image_evaluations import (
    EvaluatedSet,
    ExtractorFacts,
    ImageEvaluation,
    MetricSettings,
    SamplingFacts,
)
from diffcli.records.run_details import EvaluationSummary

_HASH_LETTERS = 12


@dataclass(frozen=True, kw_only=True)
class EvaluationLine:
    """One thing about an evaluation."""

    name: str
    value: str


def evaluation_lines(summary: EvaluationSummary) -> Iterator[EvaluationLine]:
    """The numbers first; of a kind that is not known here the kind, of a broken record what is wrong."""
    match summary.evaluation:
        case LikelihoodEvaluation():
            yield from _likelihood_lines(summary.evaluation)
        case ImageEvaluation():
            yield from _image_lines(summary.evaluation)
        case None if summary.problem is not None:
            yield EvaluationLine(name="problem", value=summary.problem)
        case None:
            yield EvaluationLine(name="kind", value=summary.kind or "")


def _likelihood_lines(evaluation: LikelihoodEvaluation) -> Iterator[EvaluationLine]:
    for name, value, *remarks in likelihood_rows(evaluation):
        yield EvaluationLine(name=name, value=" ".join(part for part in (value, *remarks) if part))
    for name, value, *remarks in likelihood_condition_rows(evaluation):
        yield EvaluationLine(name=name, value=", ".join((value, *remarks)))
    settings = evaluation.settings
    yield EvaluationLine(name="settings", value=f"{_clipped(settings.clip)}, seed {settings.seed}")
    yield EvaluationLine(name="model", value=_model(evaluation.model))
    yield from _condition_lines(evaluation.conditions)


def _image_lines(evaluation: ImageEvaluation) -> Iterator[EvaluationLine]:
    for metric in evaluation.metrics:
        name, value, images = metric_cells(metric)
        yield EvaluationLine(name=name, value=f"{value}, of {images}")
    for skipped in evaluation.skipped:
        yield EvaluationLine(name=skipped.name, value=f"not computed: {skipped.reason}")
    for warning in evaluation.warnings:
        yield EvaluationLine(name="warning", value=warning)
    if evaluation.model is not None:
        yield EvaluationLine(name="model", value=_model(evaluation.model))
    if evaluation.sampling is not None:
        yield EvaluationLine(name="sampling", value=_sampling(evaluation.sampling))
    yield EvaluationLine(name="samples", value=_set(evaluation.samples))
    if evaluation.reference is not None:
        yield EvaluationLine(name="reference", value=_set(evaluation.reference))
    yield EvaluationLine(name="extractor", value=_extractor(evaluation.extractor))
    yield EvaluationLine(name="settings", value=_settings(evaluation.settings))
    yield from _condition_lines(evaluation.conditions)


def _model(model: EvaluatedModel) -> str:
    manifest = model.checkpoint_manifest_sha256[:_HASH_LETTERS]
    return f"{model.run} at step {model.checkpoint}, weights {model.weights}" + (
        f" ({manifest})" if manifest else ""
    )


def _sampling(sampling: SamplingFacts) -> str:
    classifier, small = sampling.classifier, sampling.low_res_sha256
    guide = f"{classifier.run}@{classifier.checkpoint} at scale {classifier.scale:g}" if classifier else ""
    parts = (
        f"{sampling.solver} in {sampling.steps} steps",
        f"{sampling.model_calls} calls of the network for each image",
        "" if sampling.eta is None else f"eta {sampling.eta:g}",
        "" if sampling.cfg is None else f"cfg {sampling.cfg:g}",
        f"classifier {guide}" if guide else "",
        "" if sampling.classes is None else f"classes {sampling.classes}",
        "" if small is None else f"of small images {small[:_HASH_LETTERS]}",
        "" if sampling.start is None else f"from {sampling.start}",
        _clipped(sampling.clip),
        f"seed {sampling.seed}",
        sampling.precision,
    )
    return ", ".join(part for part in parts if part)


def _clipped(clip: bool) -> str:
    return "clipped" if clip else "not clipped"


def _set(images: EvaluatedSet) -> str:
    which = f"{images.count} of {images.total} images" if images.count else "statistics"
    weak = ", by names and sizes" if images.weak_hash else ""
    size = f", {images.height}x{images.width}x{images.channels}" if images.height else ""
    return f"{images.location}: {which}{size} ({images.content_hash[:_HASH_LETTERS]}{weak})"


def _extractor(extractor: ExtractorFacts) -> str:
    weights = "" if extractor.location is None else f", {extractor.location}"
    published = ", the published weights" if extractor.published else ""
    digest = extractor.digest[:_HASH_LETTERS]
    return f"{extractor.name}, {extractor.dimensions} dimensions ({digest}){weights}{published}"


def _settings(settings: MetricSettings) -> str:
    return ", ".join(
        (
            f"distances in {settings.distances}",
            f"{settings.neighbours} neighbours ({settings.density_neighbours} of density and coverage)",
            f"parts of {settings.score_split}",
            f"{settings.kernel_subsets} subsets of {settings.kernel_subset_size}",
            f"seed {settings.seed}",
        )
    )


def _condition_lines(conditions: EvaluationConditions) -> Iterator[EvaluationLine]:
    processes = "process" if conditions.world_size == 1 else "processes"
    where = (
        f"{conditions.world_size} {processes} on {conditions.device}, {conditions.precision}",
        f"{conditions.threads} threads, batches of {conditions.batch_size}",
        f"diffcli {conditions.diffcli}, torch {conditions.torch}, numpy {conditions.numpy}",
    )
    yield EvaluationLine(name="computed by", value="; ".join(where))
    when = conditions.started_at.astimezone().isoformat(" ", "seconds")
    yield EvaluationLine(name="when", value=f"{when}, in {duration_text(conditions.seconds)}")
