"""Draw images from a run into an archive."""

from __future__ import annotations

from diffcli.commands.conditions import ConditionsRequest, SampleConditions, find_conditions
from diffcli.commands.sampling_job import draw_archive
from diffcli.commands.sampling_process import SampleProgress, sampling_process
from diffcli.commands.sampling_request import SampleRequest, SamplingOrder, find_order
from diffcli.records.samples import SampleResult


def sample(request: SampleRequest, progress: SampleProgress) -> SampleResult:
    """Draw the images, going on from what an interrupted call has left.

    Raises InterruptedRunError after a clean stop, and UsageError when another archive has the name.
    """
    order = find_order(request)
    conditions = conditions_of(order)
    with sampling_process(
        request.device, request.threads, progress, gradients=order.guidance.classifier is not None
    ) as process:
        return draw_archive(order, conditions, process)


def conditions_of(order: SamplingOrder) -> SampleConditions:
    """What an order says of the conditions of its samples; errors are those of `find_conditions`."""
    request = order.request
    wishes = ConditionsRequest(
        count=request.count,
        seed=request.seed,
        classes=request.classes,
        noise=request.noise,
        low_res=request.low_res,
    )
    guidance = order.guidance
    return find_conditions(
        wishes, guidance.config_of_classes(order.config), guidance.class_names(order.run, order.config)
    )
