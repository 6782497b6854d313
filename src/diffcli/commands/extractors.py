"""What makes the features: Inception, pixels, or a classifier that was trained here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.classifier_features import ClassifierFeatures
from diffcli.commands.compared_set import ImageShape
from diffcli.commands.image_metric_names import INCEPTION
from diffcli.commands.inception_weights import find_inception
from diffcli.commands.run_config import current_config
from diffcli.commands.sampling_process import SamplingProcess
from diffcli.commands.weights import load_classifier
from diffcli.errors import MissingError, UsageError
from diffcli.evaluation.features import FeatureExtractor
from diffcli.evaluation.inception import InceptionFeatures
from diffcli.evaluation.pixels import PixelFeatures
from diffcli.records.datasets import PrepareListener
from diffcli.records.image_evaluations import ExtractorFacts
from diffcli.registry.create import open_run
from diffcli.registry.reference import checkpoint_reference

PIXELS = "pixels"
# images per forward pass of an extractor; another number rounds otherwise, so its statistics are not shared
FEATURE_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class ExtractorChoice:
    """What was asked for: inception, pixels, or RUN or RUN@STEP; weights: of Inception, None: to be found.

    option: by which the user asked.
    """

    features: str
    weights: Path | None
    runs_home: Path
    option: str = "--features"


@dataclass(frozen=True, kw_only=True, eq=False)
class ChosenExtractor:
    """An extractor on its device, and what a record says of it."""

    extractor: FeatureExtractor
    facts: ExtractorFacts


def load_extractor(
    choice: ExtractorChoice, shape: ImageShape | None, process: SamplingProcess
) -> ChosenExtractor:
    """The extractor for images of a shape, None for statistics alone.

    Errors: those of `find_inception` and `load_classifier`, and UsageError for a run that is no classifier,
    or one of other images.
    """
    if choice.weights is not None and choice.features != INCEPTION:
        raise UsageError("--weights are those of Inception", remedy="leave it or --features out")
    if choice.features == INCEPTION:
        return _inception(choice.weights, process)
    if shape is None:
        raise UsageError(
            "statistics without images are of Inception's features",
            where="--features",
            remedy=f"leave it out, or say {INCEPTION}",
        )
    if choice.features == PIXELS:
        return _chosen(PixelFeatures(resolution=shape.height, channels=shape.channels), None)
    return _classifier(choice, shape, process)


def _inception(weights: Path | None, process: SamplingProcess) -> ChosenExtractor:
    listener = PrepareListener(progress=process.tell_progress, notice=process.tell)
    # fetched by the first, if at all, and read by all
    path = process.workers.first_decides(lambda: find_inception(weights, listener=listener).path)
    found = find_inception(path)
    chosen = _chosen(InceptionFeatures(found.tensors, process.workers.device), path)
    facts = dataclasses.replace(chosen.facts, sha256=found.sha256, published=found.published)
    return dataclasses.replace(chosen, facts=facts)


def _classifier(choice: ExtractorChoice, shape: ImageShape, process: SamplingProcess) -> ChosenExtractor:
    reference = checkpoint_reference(choice.features)
    try:
        run = open_run(choice.runs_home, reference.run)
    except MissingError as error:
        error.remedy = f"{choice.option} is {INCEPTION}, {PIXELS}, or a run of a classifier; {error.remedy}"
        raise
    config = current_config(run)
    if config.model.kind != "classifier":
        raise UsageError(
            f"{run.id} is no classifier",
            where=choice.option,
            remedy=f"give the run of a classifier, {PIXELS}, or {INCEPTION}",
        )
    side = config.data.resolution
    wanted = ImageShape(height=side, width=side, channels=config.data.channels)
    if shape != wanted:
        raise UsageError(
            f"{run.id} reads images of {wanted}, and these are {shape}",
            where=choice.option,
            remedy=f"give a classifier of such images, {PIXELS}, or {INCEPTION}",
        )
    loaded = load_classifier(
        run, config, step=reference.step, ema=config.sampling.ema, workers=process.workers
    )
    for remark in loaded.remarks:
        process.tell(remark)
    return _chosen(ClassifierFeatures(run.id, loaded, config), run.paths.directory)


def _chosen(extractor: FeatureExtractor, location: Path | None) -> ChosenExtractor:
    facts = ExtractorFacts(
        name=extractor.name,
        digest=extractor.digest,
        dimensions=extractor.dimensions,
        location=location,
    )
    return ChosenExtractor(extractor=extractor, facts=facts)
