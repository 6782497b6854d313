"""Options of `eval` that would say nothing of the images that are there."""

from __future__ import annotations

from collections.abc import Iterator

from diffcli.commands.evaluation_target import EvaluationTarget
from diffcli.commands.image_evaluation_request import ImageEvaluationRequest
from diffcli.commands.sampling_request import SampleRequest
from diffcli.errors import UsageError


def check_options(request: ImageEvaluationRequest, target: EvaluationTarget) -> None:
    """UsageError for what would be ignored: how to draw samples that are there, a name that nothing keeps.

    Also for a directory in the place of the file of the record.
    """
    if target.path is not None:
        for option in _of_drawing(request.sampling):
            raise UsageError(
                f"{option} says how samples are drawn, and {request.target} holds images",
                where=option,
                remedy=f"leave {option} out, or give a run",
            )
    if target.run is None and request.name is not None and request.out is None:
        raise UsageError(
            f"--name names a record under a run, and {request.target} is of none",
            where="--name",
            remedy="write the record to a file with --out FILE",
        )
    if request.out is not None and request.out.is_dir():
        raise UsageError(
            f"{request.out} is a directory",
            where="--out",
            remedy=f"name the file of the record, such as {request.out / 'evaluation.json'}",
        )


def _of_drawing(sampling: SampleRequest) -> Iterator[str]:
    """The options that are given and matter only to the drawing of samples; the seed is of subsets, too."""
    given = (
        ("--steps", sampling.steps is not None),
        ("--ddim", sampling.ddim is not None),
        ("--eta", sampling.eta is not None),
        ("--set", bool(sampling.overrides)),
        ("--ema", sampling.ema is not None),
        ("--ema-std", sampling.ema_std is not None),
        ("--checkpoint", sampling.checkpoint is not None),
        ("--class", sampling.classes is not None),
        ("--classifier", sampling.guidance.classifier is not None),
        ("--guidance", sampling.guidance.scale is not None),
        ("--cfg", sampling.guidance.cfg is not None),
        ("--low-res", sampling.low_res is not None),
        ("--batch-size", sampling.batch_size is not None),
        ("--precision", sampling.precision != "fp32"),
    )
    return (option for option, is_given in given if is_given)
