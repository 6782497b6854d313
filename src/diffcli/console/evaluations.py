"""What `eval` shows."""

from __future__ import annotations

from diffcli.console.numbers import duration_text
from diffcli.console.terminal import print_json, print_next, print_notice, print_result
from diffcli.records.evaluations import EVALUATION_SCHEMA, EvaluationResult, LikelihoodEvaluation
from diffcli.registry.json_records import encode


def show_evaluation(result: EvaluationResult, *, as_json: bool) -> None:
    """The numbers, one a line, and where they are kept."""
    evaluation = result.evaluation
    if as_json:
        place = {"name": result.name, "path": encode(result.path)}
        print_json({"schema": EVALUATION_SCHEMA, **place, **encode(evaluation)})
        return
    print_notice(_description(evaluation))
    likelihood = evaluation.likelihood
    error = "" if likelihood.standard_error is None else f"\t+- {likelihood.standard_error:.4f}"
    print_result(f"bits/dim\t{likelihood.bits_per_dim:.4f}{error}")
    print_result(f"prior\t{likelihood.prior_bits_per_dim:.4g}")
    print_result(f"vb\t{likelihood.vb_bits_per_dim:.4f}")
    print_result(f"images\t{likelihood.images}")
    print_result(f"timesteps\t{_chain(evaluation)}")
    print_result(f"record\t{result.path}")
    print_next(f"diffcli runs show {evaluation.model.run}")


def _description(evaluation: LikelihoodEvaluation) -> str:
    model, images = evaluation.model, evaluation.images
    which = f"{images.count} of {images.total}" if images.count < images.total else f"all {images.total}"
    split = f" of split {images.split}" if images.split else ""
    return (
        f"{model.run} at step {model.checkpoint}, weights {model.weights}: {which} images{split}, "
        f"in {duration_text(evaluation.conditions.seconds)}"
    )


def _chain(evaluation: LikelihoodEvaluation) -> str:
    settings = evaluation.settings
    if settings.full_chain:
        return str(settings.timesteps)
    return f"{settings.timesteps} of {settings.chain_timesteps}\tthe bound of this shorter chain"
