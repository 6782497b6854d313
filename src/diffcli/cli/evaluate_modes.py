"""What `eval` does by its options: the likelihood of images under a run, or images beside a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from diffcli.errors import UsageError

if TYPE_CHECKING:
    from diffcli.commands.image_evaluation_request import ImageEvaluationRequest
    from diffcli.commands.likelihood_request import LikelihoodRequest
    from diffcli.records.sweeps import AxisName

# options of one way to evaluate, which mean nothing in the other
_OF_LIKELIHOOD = ("split", "data", "timesteps", "chain")
_OF_IMAGES = (
    *("reference", "reference_num", "metrics", "features", "weights", "half_distances", "feature_batch"),
    *("out", "sweep", "steps", "ddim", "eta", "classes", "classifier", "guidance", "cfg", "low_res"),
)
# options that say what an axis of a sweep says at each point
_OF_AXES: tuple[tuple[AxisName, tuple[str, ...]], ...] = (
    ("steps", ("steps", "ddim")),
    ("solver", ("steps", "ddim")),
    ("eta", ("eta",)),
    ("seed", ("seed",)),
    ("ema", ("ema", "ema_std")),
    ("cfg", ("cfg",)),
    ("guidance", ("guidance",)),
)


def check_options(context: typer.Context, *, nll: bool, axes: Sequence[str] | None) -> None:
    """Raise UsageError for what is on the command line and means nothing beside --nll, or without it.

    axes: those that stand free, which only --sweep takes.
    """
    for option in _OF_IMAGES if nll else _OF_LIKELIHOOD:
        if not _is_typed(context, option):
            continue
        flag = _flag(option)
        if nll:
            raise UsageError(f"--nll and {flag} exclude each other", remedy=f"leave {flag} out")
        raise UsageError(f"{flag} is for --nll", remedy="leave it out, or add --nll")
    if axes and not _is_typed(context, "sweep"):
        remedy = f"--sweep {axes[0]}" if "=" in axes[0] else "give one run, archive or directory"
        raise UsageError(f"what is {axes[0]!r} to do here?", remedy=remedy)


def sweep(
    context: typer.Context, texts: Sequence[str], evaluation: ImageEvaluationRequest, *, as_json: bool
) -> None:
    """Evaluate all points of a sweep and show them side by side."""
    from diffcli.commands.sweep import SweepRequest
    from diffcli.commands.sweep import sweep as evaluate_points
    from diffcli.commands.sweep_axes import parse_axes
    from diffcli.console.progress import WorkProgress
    from diffcli.console.sweeps import show_sweep

    axes = parse_axes(texts)
    for axis in axes:
        for option in dict(_OF_AXES)[axis.name]:
            _exclude(context, option, f"--sweep {axis.name}")
    _exclude(context, "out", "--sweep")
    with WorkProgress("evaluating", "images") as progress:
        result = evaluate_points(SweepRequest(axes=axes, evaluation=evaluation), progress)
    if result.is_first:
        show_sweep(result, as_json=as_json)


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


def _exclude(context: typer.Context, option: str, other: str) -> None:
    """UsageError when an option stands beside another that takes its place."""
    if _is_typed(context, option):
        flag = _flag(option)
        raise UsageError(f"{other} and {flag} exclude each other", remedy=f"leave {flag} out")


def _is_typed(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def _flag(option: str) -> str:
    return "--class" if option == "classes" else f"--{option.replace('_', '-')}"
