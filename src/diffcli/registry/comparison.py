"""Which numbers of evaluations are alike: what they have to share, and the digest of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator

from diffcli.records.evaluations import LikelihoodEvaluation
from diffcli.records.image_evaluations import EvaluatedSet, ImageEvaluation, Metric, MetricSettings
from diffcli.records.run_details import EvaluationSummary
from diffcli.records.run_metrics import ComparedFact, Difference, MetricResult
from diffcli.registry.metric_names import BITS_PER_DIM, family_of

_HASH_LETTERS = 8
_NONE = "none"


def results_of(summary: EvaluationSummary) -> Iterator[MetricResult]:
    """The numbers of an evaluation; none of one that could not be read, or that is none of ours."""
    match summary.evaluation:
        case LikelihoodEvaluation():
            yield from _likelihood_results(summary, summary.evaluation)
        case ImageEvaluation():
            yield from _image_results(summary, summary.evaluation)


def differences(result: MetricResult, unmarked: MetricResult) -> tuple[Difference, ...]:
    """What one result has otherwise than another of the same metric."""
    return tuple(
        Difference(name=fact.name, here=fact.text, unmarked=other.text)
        for fact, other in zip(result.facts, unmarked.facts, strict=True)
        if fact.value != other.value
    )


def _likelihood_results(
    summary: EvaluationSummary, evaluation: LikelihoodEvaluation
) -> Iterator[MetricResult]:
    likelihood = evaluation.likelihood
    if math.isnan(likelihood.bits_per_dim):
        return
    facts = tuple(_likelihood_facts(evaluation))
    yield MetricResult(
        name=BITS_PER_DIM,
        value=likelihood.bits_per_dim,
        deviation=likelihood.standard_error,
        evaluation=summary.name,
        path=summary.path,
        checkpoint=evaluation.model.checkpoint,
        weights=evaluation.model.weights,
        started_at=evaluation.conditions.started_at,
        facts=facts,
        comparison_key=_key(BITS_PER_DIM, facts),
    )


def _likelihood_facts(evaluation: LikelihoodEvaluation) -> Iterator[ComparedFact]:
    """Seeds, and what changes numbers by rounding, are none."""
    images, settings = evaluation.images, evaluation.settings
    place = f"{images.content_hash} {images.location if images.weak_hash else ''}"
    parts = (images.name or str(images.location), images.variant, images.split or "")
    dataset = " ".join(part for part in parts if part)
    yield ComparedFact(
        name="dataset",
        value=f"{place} {images.split}",
        text=f"{dataset} ({images.content_hash[:_HASH_LETTERS]})",
    )
    yield _fact("images", images.count)
    shorter = "" if settings.full_chain else f" of {settings.chain_timesteps}"
    yield _fact("chain", f"{settings.timesteps}{shorter}")
    estimate = f"{settings.drawn_timesteps} drawn for each image"
    yield ComparedFact(
        name="timesteps",
        value=str(settings.estimate),
        text=estimate if settings.estimate else "all",
    )
    yield _fact("clipped", settings.clip)
    yield _fact("precision of the network", evaluation.conditions.precision)


def _image_results(summary: EvaluationSummary, evaluation: ImageEvaluation) -> Iterator[MetricResult]:
    model = evaluation.model
    for metric in evaluation.metrics:
        if math.isnan(metric.value):
            continue
        facts = tuple(_image_facts(metric, evaluation))
        yield MetricResult(
            name=metric.name,
            value=metric.value,
            deviation=metric.spread.deviation if metric.spread else None,
            evaluation=summary.name,
            path=summary.path,
            checkpoint=model.checkpoint if model else None,
            weights=model.weights if model else None,
            started_at=evaluation.conditions.started_at,
            facts=facts,
            comparison_key=_key(metric.name, facts),
        )


def _image_facts(metric: Metric, evaluation: ImageEvaluation) -> Iterator[ComparedFact]:
    """What decides a number besides the network: weights, checkpoint and seeds are none."""
    samples, family = evaluation.samples, family_of(metric.name)
    yield _fact("samples", metric.samples)
    yield _fact("image size", f"{samples.height}x{samples.width}x{samples.channels}")
    # the score looks at no reference, whatever else was compared in the same call
    yield _reference_fact(None if family == "is" else evaluation.reference)
    yield _fact("reference images", metric.references)
    extractor = evaluation.extractor
    yield ComparedFact(
        name="extractor",
        value=extractor.digest,
        text=f"{extractor.name} ({extractor.digest[:_HASH_LETTERS]})",
    )
    yield from _settings_facts(family, evaluation.settings)
    sampling = evaluation.sampling
    yield _fact("sampler", f"{sampling.solver}-{sampling.steps}" if sampling else None)
    yield _fact("eta", sampling.eta if sampling else None)
    yield _fact("clipped", sampling.clip if sampling else None)
    yield _fact("classes", sampling.classes if sampling else None)
    yield _fact("cfg", sampling.cfg if sampling else None)
    yield _fact("classifier scale", sampling.classifier.scale if sampling and sampling.classifier else None)
    yield _fact("sampling precision", sampling.precision if sampling else None)
    yield _fact("start", sampling.start if sampling else None)
    small = sampling.low_res_sha256 if sampling else None
    yield ComparedFact(name="small images", value=str(small), text=small[:_HASH_LETTERS] if small else _NONE)


def _reference_fact(reference: EvaluatedSet | None) -> ComparedFact:
    if reference is None:
        return _fact("reference", None)
    place = f" {reference.location}" if reference.weak_hash else ""
    # of a path that may be long, enough to know it by
    known_by = str(reference.location) if reference.weak_hash else "/".join(reference.location.parts[-2:])
    return ComparedFact(
        name="reference",
        value=f"{reference.content_hash}{place}",
        text=f"{known_by} ({reference.content_hash[:_HASH_LETTERS]})",
    )


def _settings_facts(family: str, settings: MetricSettings) -> Iterator[ComparedFact]:
    """Those that the metric depends on."""
    match family:
        case "is":
            yield _fact("samples in a part", settings.score_split)
        case "precision" | "recall":
            yield _fact("neighbours", settings.neighbours)
            yield _fact("distances in", settings.distances)
        case "density" | "coverage":
            yield _fact("neighbours", settings.density_neighbours)
        case "kd":
            yield _fact("subsets", f"{settings.kernel_subsets} of {settings.kernel_subset_size}")


def _fact(name: str, value: object) -> ComparedFact:
    """A fact that is its own text."""
    match value:
        case None:
            text = _NONE
        case bool():
            text = "yes" if value else "no"
        case _:
            text = str(value)
    return ComparedFact(name=name, value=text, text=text)


def _key(metric: str, facts: tuple[ComparedFact, ...]) -> str:
    compared = [metric, *([fact.name, fact.value] for fact in facts)]
    return hashlib.sha256(json.dumps(compared).encode()).hexdigest()
