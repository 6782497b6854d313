"""What `eval` does by its options: the likelihood of images under a run, or images beside a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from diffcli.errors import UsageError

if TYPE_CHECKING:
    from diffcli.commands.image_evaluation_request import ImageEvaluationRequest
    from diffcli.commands.likelihood_request import LikelihoodRequest

# options of one way to evaluate, which mean nothing in the other
_OF_LIKELIHOOD = ("split", "data", "timesteps", "chain")
_OF_IMAGES = (
    *("reference", "reference_num", "metrics", "features", "weights", "half_distances", "feature_batch"),
    *("out", "steps", "ddim", "eta", "classes", "classifier", "guidance", "cfg"),
)
_SPELLED = {"classes": "class"}


def check_options(context: typer.Context, *, nll: bool) -> None:
    """Raise UsageError for options on the command line that mean nothing beside --nll, or without it."""
    for option in _OF_IMAGES if nll else _OF_LIKELIHOOD:
        source = context.get_parameter_source(option)
        if source is None or source.name != "COMMANDLINE":
            continue
        flag = f"--{_SPELLED.get(option, option).replace('_', '-')}"
        if nll:
            raise UsageError(f"--nll and {flag} exclude each other", remedy=f"leave {flag} out")
        raise UsageError(f"{flag} is for --nll", remedy="leave it out, or add --nll")


def likelihood(request: LikelihoodRequest, *, as_json: bool) -> None:
    """Bound the likelihood and show it."""
    from diffcli.commands.likelihood import measure_likelihood
    from diffcli.console import evaluations
    from diffcli.console.progress import WorkProgress

    with WorkProgress("evaluating", "image steps") as progress:
        result = measure_likelihood(request, progress)
    evaluations.show_evaluation(result, as_json=as_json)


def images(request: ImageEvaluationRequest, *, as_json: bool) -> None:
    """Compare images and show the numbers."""
    from diffcli.commands.evaluate_images import evaluate_images
    from diffcli.console.image_evaluations import show_image_evaluation
    from diffcli.console.progress import WorkProgress

    with WorkProgress("evaluating", "images") as progress:
        result = evaluate_images(request, progress)
    if result.is_first:
        show_image_evaluation(result, as_json=as_json)
