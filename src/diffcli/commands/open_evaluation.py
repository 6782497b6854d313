"""What evaluations of one target share: the processes, the reference, and what makes the features."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from diffcli.commands.compared_set import ComparedSet, ImageShape, open_compared_set
from diffcli.commands.evaluation_options import check_options
from diffcli.commands.evaluation_reference import open_reference
from diffcli.commands.evaluation_sides import check_sizes
from diffcli.commands.evaluation_target import EvaluationTarget, find_target
from diffcli.commands.extractors import ChosenExtractor, load_extractor
from diffcli.commands.image_evaluation_request import ImageEvaluationRequest
from diffcli.commands.image_set_statistics import KnownStatistics, needs_reference
from diffcli.commands.metric_requirements import (
    FeasibleMetrics,
    MetricRequirements,
    SideFacts,
    side_facts,
)
from diffcli.commands.run_config import current_config, require_diffusion_model
from diffcli.commands.sampling_process import SampleProgress, SamplingProcess, sampling_process


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenEvaluation:
    """A target with all that its evaluations need but for samples still to be drawn, in one of the processes.

    samples: None when they are; feasible: of the metrics; scratch: where archives are unpacked; known: of the
    reference.
    """

    target: EvaluationTarget
    samples: ComparedSet | None
    reference: ComparedSet | None
    chosen: ChosenExtractor
    feasible: FeasibleMetrics
    scratch: Path
    process: SamplingProcess
    known: KnownStatistics = field(default_factory=KnownStatistics)


@contextlib.contextmanager
def open_evaluation(request: ImageEvaluationRequest, progress: SampleProgress) -> Iterator[OpenEvaluation]:
    """Find and open what a request names, so that whatever may be wrong is told before hours of sampling.

    Errors: those of `open_compared_set`, `open_reference` and `load_extractor`, and UsageError where no
    metric can be computed. Main thread only.
    """
    sampling = request.sampling
    target = find_target(request.target, sampling.runs_home)
    check_options(request, target)
    gradients = sampling.guidance.classifier is not None
    with (
        sampling_process(sampling.device, sampling.threads, progress, gradients=gradients) as process,
        _scratch(target, process) as scratch,
        contextlib.ExitStack() as stack,
    ):
        samples = None
        if target.path is not None:
            samples = stack.enter_context(compared_samples(target.path, request, scratch))
        reference = None
        if needs_reference(asked.family for asked in request.metrics):
            found = stack.enter_context(open_reference(request.reference, target.run, scratch))
            reference = found.cut_to(min(found.total, request.reference_num or found.total))
        shape = _shape_of(samples, target)
        check_sizes(shape, reference, request.extractor.features)
        chosen = load_extractor(request.extractor, shape, process)
        feasible = _requirements(request, samples, reference, chosen).feasible(request.metrics)
        if samples is None:
            for skipped in feasible.skipped:
                process.tell(f"will not be computed: {skipped.name}: {skipped.reason}")
        yield OpenEvaluation(
            target=target,
            samples=samples,
            reference=reference,
            chosen=chosen,
            feasible=feasible,
            scratch=scratch,
            process=process,
        )


def compared_samples(
    path: Path, request: ImageEvaluationRequest, scratch: Path
) -> contextlib.AbstractContextManager[ComparedSet]:
    """What lies at a path, for as long as it is looked at."""
    return open_compared_set(path, split=None, option=request.target, scratch=scratch)


def _requirements(
    request: ImageEvaluationRequest,
    samples: ComparedSet | None,
    reference: ComparedSet | None,
    chosen: ChosenExtractor,
) -> MetricRequirements:
    """What is known of both sides, whose samples need not be drawn yet."""
    facts, extractor = SideFacts(images=request.drawn_count), chosen.extractor
    if samples is not None:
        count = min(request.sampling.count or samples.total, samples.total)
        facts = side_facts(samples.cut_to(count), count, extractor)
    of_reference = None
    if reference is not None:
        count = min(request.reference_num or reference.total, reference.total)
        of_reference = side_facts(reference, count, extractor)
    return MetricRequirements(
        samples=facts, reference=of_reference, extractor=extractor, settings=request.settings
    )


def _shape_of(samples: ComparedSet | None, target: EvaluationTarget) -> ImageShape | None:
    """Of the samples, which need not be drawn yet; None for statistics."""
    if samples is not None:
        return samples.shape
    assert target.run is not None
    require_diffusion_model(target.run)
    data = current_config(target.run).data
    return ImageShape(height=data.resolution, width=data.resolution, channels=data.channels)


@contextlib.contextmanager
def _scratch(target: EvaluationTarget, process: SamplingProcess) -> Iterator[Path]:
    """A place for what is unpacked: in the run, or in a temporary directory."""
    if target.run is not None:
        yield target.run.paths.directory
        return
    with contextlib.ExitStack() as stack:
        made = process.workers.first_decides(
            lambda: stack.enter_context(tempfile.TemporaryDirectory(prefix="diffcli-eval-"))
        )
        yield Path(made)
        # until all are done with it
        process.workers.largest(0)
