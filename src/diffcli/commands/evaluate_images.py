"""Compare images with a reference: `eval RUN|ARCHIVE|DIR`."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffcli import durable
from diffcli.commands.evaluation_conditions import evaluation_conditions
from diffcli.commands.evaluation_reference import ReferenceChoice, open_reference
from diffcli.commands.evaluation_sides import ImageShape, Sides, check_sizes, shape_of
from diffcli.commands.evaluation_target import EvaluationTarget, find_target
from diffcli.commands.extractors import FEATURE_BATCH, ChosenExtractor, ExtractorChoice, load_extractor
from diffcli.commands.image_evaluation_record import (
    RecordPlace,
    check_name,
    fingerprint_of,
    model_of,
    place_of,
    recorded,
    sampling_of,
)
from diffcli.commands.image_metric_names import AskedMetric
from diffcli.commands.image_metrics import ImageComparison
from diffcli.commands.image_set_statistics import REFERENCE_ROWS, SetMeasurement, needs_reference
from diffcli.commands.nearest_picture import write_pairs
from diffcli.commands.run_config import current_config, require_diffusion_model
from diffcli.commands.sample import conditions_of
from diffcli.commands.sampling_job import draw_archive
from diffcli.commands.sampling_process import SampleProgress, SamplingProcess, sampling_process
from diffcli.commands.sampling_request import SampleRequest, find_order
from diffcli.data.image_sets import ImageSet, open_image_set
from diffcli.evaluation.set_statistics import SetStatistics
from diffcli.records.image_evaluations import (
    IMAGE_EVALUATION_SCHEMA,
    Arithmetic,
    ImageEvaluation,
    ImageEvaluationResult,
    MetricSettings,
    NearestPair,
)
from diffcli.registry.json_records import write_record
from diffcli.registry.sample_records import found_archive

DEFAULT_SAMPLES = 10_000
_NEIGHBOURS, _DENSITY_NEIGHBOURS = 3, 5
_SCORE_SPLIT = 5000
_KERNEL_SUBSETS, _KERNEL_SUBSET_SIZE = 100, 1000


@dataclass(frozen=True, kw_only=True)
class ImageEvaluationRequest:
    """What `diffcli eval` was asked for.

    sampling: how samples of a run are drawn, and on which device; its count: images, None for all that are
    there, or 10,000 of a run; batch_size: images per forward pass of the extractor, None for 64;
    reference_num: images of the reference, None for all; out: the file for the record of images that are no
    run's.
    """

    target: str
    sampling: SampleRequest
    reference: ReferenceChoice
    metrics: tuple[AskedMetric, ...]
    extractor: ExtractorChoice
    distances: Arithmetic
    reference_num: int | None
    batch_size: int | None
    name: str | None
    out: Path | None
    force: bool


def evaluate_images(request: ImageEvaluationRequest, progress: SampleProgress) -> ImageEvaluationResult:
    """Draw samples if need be, compare them with the reference, and record the numbers.

    The same request again gives what is recorded. Errors: those of `draw_archive`, `open_image_set`,
    `open_reference` and `load_extractor`, and InterruptedRunError after a clean stop: the same command goes
    on. Main thread only.
    """
    sampling = request.sampling
    check_name(request.name)
    target = find_target(request.target, sampling.runs_home)
    gradients = sampling.guidance.classifier is not None
    with (
        sampling_process(sampling.device, sampling.threads, progress, gradients=gradients) as process,
        _scratch(target, process) as scratch,
        contextlib.ExitStack() as stack,
    ):
        # whatever may be wrong is to be told before hours of sampling
        samples = None
        if target.path is not None:
            samples = stack.enter_context(_image_set(target.path, request, scratch))
        reference = None
        if needs_reference(asked.family for asked in request.metrics):
            reference = stack.enter_context(open_reference(request.reference, target.run, scratch))
        shape = _shape_of(samples, target)
        check_sizes(shape, reference, request.extractor.features)
        chosen = load_extractor(request.extractor, shape, process)
        if samples is None:
            samples = stack.enter_context(_image_set(_drawn(request, process), request, scratch))
        return _Comparing(
            request=request,
            target=target,
            sides=Sides(
                samples=samples,
                reference=reference,
                samples_wanted=sampling.count,
                references_wanted=request.reference_num,
            ),
            chosen=chosen,
            scratch=scratch,
            process=process,
        ).run_to_the_end()


def _image_set(
    path: Path, request: ImageEvaluationRequest, scratch: Path
) -> contextlib.AbstractContextManager[ImageSet]:
    return open_image_set(path, split=None, option=request.target, scratch=scratch)


def _shape_of(samples: ImageSet | None, target: EvaluationTarget) -> ImageShape:
    """Of the samples, which need not be drawn yet."""
    if samples is not None:
        return shape_of(samples.dataset)
    assert target.run is not None
    require_diffusion_model(target.run)
    data = current_config(target.run).data
    return ImageShape(height=data.resolution, width=data.resolution, channels=data.channels)


def _drawn(request: ImageEvaluationRequest, process: SamplingProcess) -> Path:
    """The archive of the run's samples, whose drawing goes on or is already done."""
    count = request.sampling.count or DEFAULT_SAMPLES
    order = find_order(dataclasses.replace(request.sampling, count=count))
    process.begin("sampling")
    return draw_archive(order, conditions_of(order), process).archive


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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Comparing:
    """One comparison, in one of its processes."""

    request: ImageEvaluationRequest
    target: EvaluationTarget
    sides: Sides
    chosen: ChosenExtractor
    scratch: Path
    process: SamplingProcess

    def run_to_the_end(self) -> ImageEvaluationResult:
        """Work out what is missing, then let the first process put it together."""
        workers = self.process.workers
        began = time.monotonic()
        blank = workers.first_decides(self._blank)
        place = workers.first_decides(lambda: self._place(blank))
        there = workers.first_decides(lambda: recorded(place, blank, force=self.request.force))
        if there is not None:
            return self._result(place, there, already_there=True)
        measurement = self._measurement(place)
        samples = measurement.samples(self.sides.samples.dataset, blank.samples.count)
        comparison = self._comparison(measurement, samples, blank.settings)
        finished = workers.first_decides(lambda: self._finished(blank, place, comparison, began))
        workers.first_decides(measurement.forget)
        return self._result(place, finished, already_there=False)

    def _measurement(self, place: RecordPlace) -> SetMeasurement:
        return SetMeasurement(
            extractor=self.chosen.extractor,
            families=frozenset(asked.family for asked in self.request.metrics),
            batch_size=self._batch_size,
            directory=self._kept / f".{place.name}.parts",
            process=self.process,
        )

    def _comparison(
        self, measurement: SetMeasurement, samples: SetStatistics, settings: MetricSettings
    ) -> ImageComparison:
        found, neighbours = None, None
        reference = self.sides.reference
        if reference is not None:
            found, neighbours = measurement.reference(reference, self.sides.reference_count, samples)
        return ImageComparison(
            samples=samples,
            reference=found,
            neighbours=neighbours,
            extractor=self.chosen.extractor,
            settings=settings,
        )

    def _finished(
        self, blank: ImageEvaluation, place: RecordPlace, comparison: ImageComparison, began: float
    ) -> ImageEvaluation:
        """Compute the metrics and write the record, if it has a place."""
        self.process.begin("metrics")
        measured = comparison.measured(self.request.metrics)
        nearest = comparison.nearest_pairs()
        record = dataclasses.replace(
            blank,
            metrics=measured.metrics,
            skipped=measured.skipped,
            warnings=self.sides.warnings(self.chosen.facts, measured.metrics),
            nearest=nearest,
            conditions=dataclasses.replace(blank.conditions, seconds=round(time.monotonic() - began, 3)),
        )
        if place.path is not None:
            with durable.storage_errors(place.path):
                place.path.parent.mkdir(parents=True, exist_ok=True)
            self._draw_pairs(nearest, place.path)
            write_record(place.path, record, schema=IMAGE_EVALUATION_SCHEMA)
        return record

    def _draw_pairs(self, nearest: tuple[NearestPair, ...], path: Path) -> None:
        images = self.sides.reference_images
        if nearest and images is not None:
            write_pairs(path.with_suffix(".png"), nearest, self.sides.samples.dataset, images.dataset)

    def _blank(self) -> ImageEvaluation:
        """The record without its numbers; in the first process only."""
        request = self.request
        archive = (
            None if self.target.run is None else found_archive(self.sides.samples.dataset.location.parent)
        )
        record = ImageEvaluation(
            fingerprint="",
            model=None if archive is None else model_of(archive),
            sampling=None if archive is None else sampling_of(archive),
            samples=self.sides.samples.described(self.sides.count),
            reference=self.sides.described_reference(),
            extractor=self.chosen.facts,
            settings=MetricSettings(
                seed=request.sampling.seed,
                distances=request.distances,
                neighbours=_NEIGHBOURS,
                density_neighbours=_DENSITY_NEIGHBOURS,
                score_split=_SCORE_SPLIT,
                kernel_subsets=_KERNEL_SUBSETS,
                kernel_subset_size=_KERNEL_SUBSET_SIZE,
                reference_rows=REFERENCE_ROWS,
            ),
            conditions=evaluation_conditions(
                self.process.workers,
                batch_size=self._batch_size,
                precision="fp32",
                command_line=request.sampling.command_line,
            ),
            metrics=(),
            skipped=(),
            warnings=(),
        )
        asked = tuple(metric.text for metric in request.metrics)
        return dataclasses.replace(record, fingerprint=fingerprint_of(record, asked))

    def _place(self, record: ImageEvaluation) -> RecordPlace:
        return place_of(record, self.target.run, name=self.request.name, out=self.request.out)

    @property
    def _kept(self) -> Path:
        """Under the run, where what is half done stays for the next call; of other images it does not."""
        return self.scratch if self.target.run is None else self.target.run.paths.evaluations

    @property
    def _batch_size(self) -> int:
        return self.request.batch_size or FEATURE_BATCH

    def _result(
        self, place: RecordPlace, evaluation: ImageEvaluation, *, already_there: bool
    ) -> ImageEvaluationResult:
        return ImageEvaluationResult(
            name=place.name,
            path=place.path,
            evaluation=evaluation,
            already_there=already_there,
            is_first=self.process.workers.is_first,
        )
