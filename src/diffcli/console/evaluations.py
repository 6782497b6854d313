"""What `eval` shows."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from diffcli.console.charts import EIGHTHS, PLAIN_EIGHTHS, ChartSize, logarithmic_chart
from diffcli.console.numbers import duration_text
from diffcli.console.terminal import is_interactive, print_json, print_next, print_notice, print_result
from diffcli.records.evaluations import (
    EVALUATION_SCHEMA,
    EvaluatedImages,
    EvaluationResult,
    LikelihoodEvaluation,
    LikelihoodSettings,
)
from diffcli.registry.json_records import encode

_HASH_LETTERS = 12
_CHART_LINES = 6
_MOST_CHART_COLUMNS = 72
# the numbers on its left, and a margin
_BESIDE_CHART = 14


def show_evaluation(result: EvaluationResult, *, as_json: bool) -> None:
    """The numbers, one a line, and where they are kept; nothing from any process but the first."""
    if not result.is_first:
        return
    if as_json:
        print_json(_as_json(result))
        return
    evaluation = result.evaluation
    print_notice(_description(result))
    _draw_curve(evaluation)
    for row in _rows(result):
        print_result("\t".join(row))
    print_next(f"diffcli runs show {evaluation.model.run}")


def _as_json(result: EvaluationResult) -> dict[str, Any]:
    return {
        "schema": EVALUATION_SCHEMA,
        "name": result.name,
        "path": encode(result.path),
        "picture": encode(result.picture),
        "published": encode(result.published),
        "already_there": result.already_there,
        **encode(result.evaluation),
    }


def likelihood_rows(evaluation: LikelihoodEvaluation) -> list[tuple[str, ...]]:
    """Name, value and what else there is to say of each number of an evaluation."""
    likelihood, settings = evaluation.likelihood, evaluation.settings
    error = "" if likelihood.standard_error is None else f"+- {likelihood.standard_error:.4f}"
    estimate = ("estimate",) if settings.estimate else ()
    return [
        ("bits/dim", f"{likelihood.bits_per_dim:.4f}", error, *estimate),
        ("prior", f"{likelihood.prior_bits_per_dim:.4g}"),
        ("vb", f"{likelihood.vb_bits_per_dim:.4f}"),
    ]


def likelihood_condition_rows(evaluation: LikelihoodEvaluation) -> list[tuple[str, ...]]:
    """Of which images the numbers are, and of which chain."""
    settings = evaluation.settings
    rows: list[tuple[str, ...]] = [
        ("images", str(evaluation.likelihood.images), _dataset(evaluation.images)),
        ("timesteps", *_timesteps(settings)),
    ]
    if not settings.full_chain:
        rows.append(
            (
                "chain",
                f"{settings.timesteps} of {settings.chain_timesteps}",
                "the bound of this shorter chain",
            )
        )
    return rows


def _rows(result: EvaluationResult) -> list[tuple[str, ...]]:
    rows = likelihood_rows(result.evaluation)
    if result.published is not None:
        rows.append(("published", str(result.published.bits_per_dim), result.published.source))
    rows += likelihood_condition_rows(result.evaluation)
    rows.append(("record", str(result.path)))
    if result.picture is not None:
        rows.append(("curve", str(result.picture)))
    return rows


def _dataset(images: EvaluatedImages) -> str:
    """Which images: numbers on others, or on another variant, are not to be compared with these."""
    parts = (images.name or str(images.location), images.variant, images.split or "")
    weak = ", by names and sizes" if images.weak_hash else ""
    named = " ".join(part for part in parts if part)
    return f"{named} ({images.content_hash[:_HASH_LETTERS]}{weak})"


def _timesteps(settings: LikelihoodSettings) -> tuple[str, ...]:
    if settings.drawn_timesteps is None:
        return (str(settings.timesteps),)
    return (f"{settings.drawn_timesteps} of {settings.timesteps}", "drawn for each image")


def _description(result: EvaluationResult) -> str:
    evaluation = result.evaluation
    model, images = evaluation.model, evaluation.images
    which = f"{images.count} of {images.total}" if images.count < images.total else f"all {images.total}"
    split = f" of split {images.split}" if images.split else ""
    done = (
        "already evaluated" if result.already_there else f"in {duration_text(evaluation.conditions.seconds)}"
    )
    return f"{model.run} at step {model.checkpoint}, weights {model.weights}: {which} images{split}, {done}"


def _draw_curve(evaluation: LikelihoodEvaluation) -> None:
    """The terms of the bound over the timesteps, for somebody who watches."""
    if not is_interactive(sys.stderr):
        return
    curve = evaluation.likelihood.curve
    columns = min(_MOST_CHART_COLUMNS, shutil.get_terminal_size().columns - _BESIDE_CHART)
    if columns < 1:
        return
    chart = logarithmic_chart(
        curve.vb_bits_per_dim, ChartSize(columns=columns, lines=_CHART_LINES), eighths=_eighths()
    )
    if not chart:
        return
    print_notice(f"vb over timesteps {curve.timesteps[0]} to {curve.timesteps[-1]}, bits/dim each")
    for line in chart:
        print_notice(line)


def _eighths() -> str:
    try:
        EIGHTHS.encode(sys.stderr.encoding)
    except UnicodeEncodeError:
        return PLAIN_EIGHTHS
    return EIGHTHS
