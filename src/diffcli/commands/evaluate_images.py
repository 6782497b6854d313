"""Compare images with a reference: `eval RUN|ARCHIVE|DIR`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

from diffcli import durable
from diffcli.commands.evaluation_conditions import evaluation_conditions
from diffcli.commands.evaluation_sides import Sides
from diffcli.commands.evaluation_target import EvaluationTarget
from diffcli.commands.extractors import FEATURE_BATCH, ChosenExtractor
from diffcli.commands.image_evaluation_record import (
    RecordPlace,
    check_name,
    evaluation_in,
    fingerprint_of,
    model_of,
    place_of,
    recorded,
    sampling_of,
)
from diffcli.commands.image_evaluation_request import ImageEvaluationRequest
from diffcli.commands.image_metrics import ImageComparison
from diffcli.commands.image_set_statistics import KnownStatistics, SetMeasurement, needs_reference
from diffcli.commands.metric_requirements import FeasibleMetrics
from diffcli.commands.nearest_picture import check_picture_place, picture_of, write_pairs
from diffcli.commands.open_evaluation import OpenEvaluation, compared_samples, open_evaluation
from diffcli.commands.sample import conditions_of
from diffcli.commands.sampling_job import draw_archive
from diffcli.commands.sampling_process import SampleProgress, SamplingProcess
from diffcli.commands.sampling_request import find_order
from diffcli.commands.taken_names import check_name_free
from diffcli.evaluation.set_statistics import SetStatistics
from diffcli.records.image_evaluations import (
    IMAGE_EVALUATION_SCHEMA,
    ImageEvaluation,
    ImageEvaluationResult,
    MetricSettings,
    NearestPair,
)
from diffcli.registry.json_records import write_record
from diffcli.registry.sample_records import found_archive


def evaluate_images(request: ImageEvaluationRequest, progress: SampleProgress) -> ImageEvaluationResult:
    """Draw samples if need be, compare them with the reference, and record the numbers.

    The same request again gives what is recorded. Errors: those of `open_evaluation` and `draw_archive`, and
    InterruptedRunError after a clean stop: the same command goes on. Main thread only.
    """
    check_name(request.name)
    if request.out is not None and not request.force and any(m.family == "nearest" for m in request.metrics):
        check_picture_place(request.out)
    with open_evaluation(request, progress) as opened:
        opened.process.workers.first_decides(lambda: check_name_free(opened, request))
        return evaluate_in(opened, request)


def evaluate_in(opened: OpenEvaluation, request: ImageEvaluationRequest) -> ImageEvaluationResult:
    """The same of what is open for it: requests may differ in their samples and the name of the record."""
    process, scratch = opened.process, opened.scratch
    with contextlib.ExitStack() as stack:
        samples = opened.samples
        if samples is None:
            samples = stack.enter_context(compared_samples(_drawn(request, process), request, scratch))
        return _Comparing(
            request=request,
            target=opened.target,
            sides=Sides(
                samples=samples.cut_to(request.sampling.count or samples.total),
                reference=opened.reference,
                samples_wanted=request.sampling.count,
                references_wanted=request.reference_num,
            ),
            chosen=opened.chosen,
            feasible=opened.feasible,
            known=opened.known,
            scratch=scratch,
            process=process,
        ).run_to_the_end()


def _drawn(request: ImageEvaluationRequest, process: SamplingProcess) -> Path:
    """The archive of the run's samples, whose drawing goes on or is already done."""
    order = find_order(dataclasses.replace(request.sampling, count=request.drawn_count))
    process.begin("sampling")
    return draw_archive(order, conditions_of(order), process).archive


@dataclass(frozen=True, kw_only=True, eq=False)
class _Comparing:
    """One comparison, in one of its processes."""

    request: ImageEvaluationRequest
    target: EvaluationTarget
    sides: Sides
    chosen: ChosenExtractor
    feasible: FeasibleMetrics
    known: KnownStatistics
    scratch: Path
    process: SamplingProcess

    def run_to_the_end(self) -> ImageEvaluationResult:
        """Work out what is missing, then let the first process put it together."""
        workers = self.process.workers
        began = time.monotonic()
        blank = workers.first_decides(self._blank)
        place = workers.first_decides(lambda: self._place(blank))
        there = workers.first_decides(lambda: recorded(place, blank, force=self.request.force))
        measurement = self._measurement(place)
        if there is not None:
            # of a call that was killed once the record stood
            workers.first_decides(measurement.forget)
            return self._result(place, there, already_there=True)
        samples = measurement.samples(self.sides.samples, blank.samples.count)
        comparison = self._comparison(measurement, samples, blank.settings)
        finished = workers.first_decides(lambda: self._finished(blank, place, comparison, began))
        workers.first_decides(measurement.forget)
        return self._result(place, finished, already_there=False)

    def _measurement(self, place: RecordPlace) -> SetMeasurement:
        return SetMeasurement(
            extractor=self.chosen.extractor,
            families=frozenset(asked.family for asked in self.feasible.metrics),
            batch_size=self._batch_size,
            directory=self._kept / f".{place.name}.parts",
            process=self.process,
        )

    def _comparison(
        self, measurement: SetMeasurement, samples: SetStatistics, settings: MetricSettings
    ) -> ImageComparison:
        found, neighbours = None, None
        reference = self.sides.reference
        if reference is not None and needs_reference(asked.family for asked in self.feasible.metrics):
            found, neighbours = measurement.reference(
                reference, self.sides.reference_count, samples, self.known
            )
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
        metrics = comparison.measured(
            self.feasible.metrics, lambda: self.process.heed_stop("the features are kept")
        )
        nearest = comparison.nearest_pairs()
        record = dataclasses.replace(
            blank,
            metrics=metrics,
            skipped=self.feasible.skipped,
            warnings=self.sides.warnings(self.chosen.facts, metrics),
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
        samples, images = self.sides.samples.images, self.sides.reference_images
        there = evaluation_in(path)
        if there is not None and there.nearest:
            # of the record that is replaced
            with durable.storage_errors(path):
                picture_of(path).unlink(missing_ok=True)
        if nearest and samples is not None and images is not None:
            write_pairs(picture_of(path), nearest, samples.dataset, images.dataset)

    def _blank(self) -> ImageEvaluation:
        """The record without its numbers; in the first process only."""
        request = self.request
        images = self.sides.samples.images
        archive = None
        if self.target.run is not None and images is not None:
            archive = found_archive(images.dataset.location.parent)
        record = ImageEvaluation(
            fingerprint="",
            model=None if archive is None else model_of(archive),
            sampling=None if archive is None else sampling_of(archive),
            samples=self.sides.samples.described(self.sides.count),
            reference=self.sides.described_reference(),
            extractor=self.chosen.facts,
            settings=request.settings,
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
            picture=_pairs_beside(place.path, evaluation),
            evaluation=evaluation,
            already_there=already_there,
            is_first=self.process.workers.is_first,
        )


def _pairs_beside(path: Path | None, evaluation: ImageEvaluation) -> Path | None:
    """The picture of the nearest pairs, None where none was drawn."""
    drawn = path is not None and evaluation.nearest and picture_of(path).is_file()
    return picture_of(path) if path is not None and drawn else None
