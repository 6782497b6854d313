"""How near samples of a network in training come to the images that it is trained on."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcli.commands.assemble import Assembly
from diffcli.commands.compared_set import ComparedSet, shape_of
from diffcli.commands.extractors import FEATURE_BATCH, ChosenExtractor, ExtractorChoice, load_extractor
from diffcli.commands.image_metric_names import metric_name, parse_metrics
from diffcli.commands.image_set_statistics import NOTHING_KNOWN, KnownStatistics, SetMeasurement
from diffcli.commands.images_as_trained import images_as_trained
from diffcli.commands.interruption import StopRequests
from diffcli.commands.sampling_process import SamplingProcess
from diffcli.commands.training_samples import SampleNumbers, draw_samples
from diffcli.commands.training_screen import Screen
from diffcli.commands.training_target import TrainingTarget
from diffcli.commands.weights import default_batch_size, weights_name
from diffcli.config.sections import RunConfig
from diffcli.data.dataset import Dataset
from diffcli.data.image_sets import ImageSet
from diffcli.errors import DiffcliError, InterruptedRunError
from diffcli.evaluation.features import FeatureExtractor
from diffcli.evaluation.frechet import FrechetReference
from diffcli.evaluation.kernel_distance import kernel_distance
from diffcli.evaluation.moments import moments_of
from diffcli.evaluation.set_statistics import SetStatistics
from diffcli.records.training import SampleMetric
from diffcli.registry.create import Run
from diffcli.registry.run_record import MeasuredSamples
from diffcli.sampling.noise import sample_classes
from diffcli.workers import Workers

# as `sample` and `eval` have it unless they are told otherwise, and not the run's own: runs with other seeds,
# and one that was rolled back, are measured by the same noise
SAMPLE_SEED = 0
# a tenth of what `eval` draws; more would hold the training up
_KERNEL_SUBSETS = 10
_OPTION = "training.eval_features"
_PARTS = ".training-images.parts"
_SECONDS_BETWEEN_NOTICES = 30.0


def sample_measure(
    target: TrainingTarget, dataset: Dataset, process: SamplingProcess
) -> SampleMeasure | None:
    """What measures the samples of a training, its extractor loaded; None when it is to draw none.

    Errors: those of `load_extractor`, which name the setting.
    """
    config = target.config
    if not config.training.eval_every or not config.training.eval_samples:
        return None
    images = images_as_trained(dataset, config)
    features = config.training.eval_features
    choice = ExtractorChoice(
        features=features, weights=None, runs_home=target.request.runs_home, option=_OPTION
    )
    try:
        chosen = load_extractor(choice, shape_of(images.dataset), process)
    except DiffcliError as error:
        if error.where != _OPTION:
            error.where = "; ".join(part for part in (f"{_OPTION} = {features}", error.where) if part)
        raise
    return SampleMeasure(config=config, chosen=chosen, images=images, process=process)


def training_process(workers: Workers, stop: StopRequests, screen: Screen) -> SamplingProcess:
    """A process that trains, as one of those that extract features together."""
    return SamplingProcess(workers=workers, stop=stop, progress=_Notices(screen))


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleMeasure:
    """An extractor, and the training images that samples are compared with."""

    config: RunConfig
    chosen: ChosenExtractor
    images: ImageSet
    process: SamplingProcess

    @property
    def facts(self) -> MeasuredSamples:
        """What an attempt records of it."""
        training = self.config.training
        return MeasuredSamples(
            count=training.eval_samples,
            steps=training.eval_steps,
            seed=SAMPLE_SEED,
            weights=weights_name(self.config, "first"),
            extractor=self.chosen.facts,
            reference=self.images.described(self.images.dataset.count),
        )

    def ready(self, assembly: Assembly, run: Run) -> SampleMetrics:
        """Once the statistics of the training images are at hand, which are worked out if need be.

        Those of a prepared dataset are kept beside it. Raises InterruptedRunError in all processes once one
        of them was asked to stop.
        """
        try:
            reference = self._reference(run)
        except InterruptedRunError as error:
            error.what = f"{run.id} was stopped before its training went on: {error.what}"
            error.remedy = f"go on with: diffcli train --resume {run.id}"
            raise
        pooled = reference.pooled
        return SampleMetrics(
            config=self.config,
            assembly=assembly,
            extractor=self.chosen.extractor,
            workers=self.process.workers,
            frechet=None if pooled is None else FrechetReference(pooled),
            rows=reference.rows,
        )

    def _reference(self, run: Run) -> SetStatistics:
        # the very statistics that `eval` works out by default, so that they are worked out once
        asked = parse_metrics(None, self.config.training.eval_features)
        measurement = SetMeasurement(
            extractor=self.chosen.extractor,
            families=frozenset(metric.family for metric in asked),
            batch_size=FEATURE_BATCH,
            directory=run.paths.evaluations / _PARTS,
            process=self.process,
        )
        reference = ComparedSet(images=self.images, statistics=None)
        count = self.images.dataset.count
        found, _ = measurement.reference(reference, count, NOTHING_KNOWN, KnownStatistics())
        self.process.workers.first_decides(measurement.forget)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleMetrics:
    """Draws the same samples every time, and tells their distance to the training images.

    frechet, rows: of the training images, in the first process, None in others.
    """

    config: RunConfig
    assembly: Assembly
    extractor: FeatureExtractor
    workers: Workers
    frechet: FrechetReference | None
    rows: Tensor | None

    def measure(self) -> tuple[SampleMetric, ...]:
        """The metrics of the network as it is; equal in all processes, each of which draws its share."""
        # in rank order, which is that of the samples
        features = torch.cat(self.workers.gather_on_host(self._features_of_share()))
        return self.workers.first_decides(lambda: self._compared(features))

    def _features_of_share(self) -> Tensor:
        """float32 [N, D] on the CPU; N is 0 where there are fewer samples than processes."""
        share = self.workers.share(self.config.training.eval_samples)
        # never more than a training step takes at once, nor than `sample` does
        size = min(self.assembly.microbatch, default_batch_size(self.config))
        parts = [torch.empty(0, self.extractor.dimensions)]
        for start in range(share.start, share.stop, size):
            images = self._drawn(range(start, min(start + size, share.stop)))
            parts.append(self.extractor(images).pooled.cpu())
        return torch.cat(parts)

    def _drawn(self, places: range) -> Tensor:
        samples = torch.arange(places.start, places.stop)
        classes, device = self.config.model.classes, self.workers.device
        numbers = SampleNumbers(
            seed=SAMPLE_SEED,
            samples=samples.to(device),
            classes=sample_classes(SAMPLE_SEED, samples, classes).to(device) if classes else None,
        )
        return draw_samples(self.config, self.assembly, numbers, steps=self.config.training.eval_steps)

    def _compared(self, features: Tensor) -> tuple[SampleMetric, ...]:
        assert self.frechet is not None
        assert self.rows is not None
        distance = self.frechet.distance(moments_of(features))
        kernel = kernel_distance(features, self.rows, SAMPLE_SEED, subsets=_KERNEL_SUBSETS)
        values = (("fd", distance), ("kd", kernel.mean))
        return tuple(
            SampleMetric(name=metric_name(family, self.extractor.name), value=value)
            for family, value in values
        )


class _Notices:
    """Tells a training's watcher how far the features of its images are. Implements `SampleProgress`."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._told_at = time.monotonic()

    def begin(self, _verb: str) -> None:
        """As `SampleProgress`; of the training images there is only one thing to count."""
        self._told_at = time.monotonic()
        self.notice("measuring the training images, to compare samples with")

    def __call__(self, done: int, total: int) -> None:
        """As `SampleProgress`, but seldom: there is no bar yet."""
        if time.monotonic() - self._told_at >= _SECONDS_BETWEEN_NOTICES:
            self._told_at = time.monotonic()
            self.notice(f"{done:,} of {total:,}")

    def notice(self, text: str) -> None:
        """As `SampleProgress`."""
        self._screen.notice(text)
