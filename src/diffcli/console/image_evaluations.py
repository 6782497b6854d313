"""What `eval` shows of images beside a reference."""

from __future__ import annotations

from diffcli.console.numbers import duration_text, significant
from diffcli.console.rows import print_rows, printable
from diffcli.console.terminal import print_json, print_next, print_notice, print_result
from diffcli.records.image_evaluations import (
    IMAGE_EVALUATION_SCHEMA,
    EvaluatedSet,
    ImageEvaluation,
    ImageEvaluationResult,
    Metric,
)
from diffcli.registry.json_records import encode


def show_image_evaluation(result: ImageEvaluationResult, *, as_json: bool) -> None:
    """The numbers, one a line, what could not be computed, and where they are kept."""
    evaluation = result.evaluation
    if as_json:
        place = {"name": result.name, "path": encode(result.path), "already_there": result.already_there}
        print_json({"schema": IMAGE_EVALUATION_SCHEMA, **place, **encode(evaluation)})
        return
    print_notice(_description(evaluation, already_there=result.already_there))
    print_rows([metric_cells(metric) for metric in evaluation.metrics])
    for skipped in evaluation.skipped:
        print_notice(f"not computed: {skipped.name}: {skipped.reason}")
    for warning in evaluation.warnings:
        print_notice(f"warning: {warning}")
    if result.path is not None:
        print_result(f"record\t{printable(str(result.path))}")
    if result.picture is not None:
        print_result(f"nearest\t{printable(str(result.picture))}")
    if evaluation.model is not None:
        print_next(f"diffcli runs show {evaluation.model.run}")


def metric_cells(metric: Metric) -> tuple[str, str, str]:
    """Name, value, and of how many images it is."""
    value = significant(metric.value)
    if metric.spread is not None:
        value += f" +- {significant(metric.spread.deviation)} over {metric.spread.count} {metric.spread.over}"
    images = "published statistics" if metric.samples is None else f"{metric.samples} samples"
    if metric.references is not None:
        images += f", {metric.references} of the reference"
    return metric.name, value, images


def _description(evaluation: ImageEvaluation, *, already_there: bool) -> str:
    whose = _set_text(evaluation.samples)
    if evaluation.model is not None:
        model = evaluation.model
        whose = f"{model.run} at step {model.checkpoint}, weights {model.weights}: {whose}"
    beside = "" if evaluation.reference is None else f", beside {_set_text(evaluation.reference)}"
    took = "already evaluated" if already_there else f"in {duration_text(evaluation.conditions.seconds)}"
    return printable(f"{whose}{beside}; features: {evaluation.extractor.name}; {took}")


def _set_text(images: EvaluatedSet) -> str:
    if images.kind == "statistics" and not images.count:
        return f"the statistics in {images.location}"
    which = f"{images.count} of {images.total}" if images.count < images.total else f"{images.count}"
    return f"{which} images of {images.location}"
