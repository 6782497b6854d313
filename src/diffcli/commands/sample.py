"""Draw images from a run into an archive."""

from __future__ import annotations

from diffcli.commands.conditions import ConditionsRequest, find_conditions
from diffcli.commands.sampling_job import draw_archive
from diffcli.commands.sampling_process import SampleProgress, sampling_process
from diffcli.commands.sampling_request import SampleRequest, SamplingOrder, find_order
from diffcli.records.samples import SampleResult


def sample(request: SampleRequest, progress: SampleProgress) -> SampleResult:
    """Draw the images, going on from what an interrupted call has left.

    Raises InterruptedRunError after a clean stop, and UsageError when another archive has the name.
    """
    order = find_order(request)
    conditions = find_conditions(
        conditions_request(order), order.config, order.run.record.dataset.class_names
    )
    with sampling_process(request.device, request.threads, progress) as process:
        return draw_archive(order, conditions, process)


def conditions_request(order: SamplingOrder) -> ConditionsRequest:
    """What an order says of the conditions of its samples."""
    request = order.request
    return ConditionsRequest(
        count=request.count,
        seed=request.seed,
        classes=request.classes,
        noise=request.noise,
        low_res=request.low_res,
    )
