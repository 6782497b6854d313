"""What leads samples towards their classes: how `sample` is asked for it, and whether it suits the run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.run_config import current_config
from diffcli.config.sections import RunConfig
from diffcli.errors import UsageError
from diffcli.registry.create import Run, open_run
from diffcli.registry.reference import checkpoint_reference
from diffcli.registry.run_record import known_dataset

# the gradient as the classifier gives it
_PLAIN_SCALE = 1.0
# what the noise is that a classifier has learned to see through
_SAME_NOISE = ("steps", "schedule")


@dataclass(frozen=True, kw_only=True)
class GuidanceRequest:
    """What was asked for; None where it was not.

    classifier: a run, as RUN or RUN@STEP; scale: of its gradient; cfg: how far to go from the prediction
    without classes, 0, to that with them, 1, and beyond.
    """

    classifier: str | None = None
    scale: float | None = None
    cfg: float | None = None


NO_GUIDANCE = GuidanceRequest()


@dataclass(frozen=True, kw_only=True)
class ChosenClassifier:
    """A run whose classifier suits the run that it is to guide.

    step: of the checkpoint, None for the newest; remarks: for the caller to tell.
    """

    run: Run
    config: RunConfig
    step: int | None
    scale: float
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """What guides the samples of a run, with nothing loaded yet: a classifier, `cfg`, or nothing."""

    classifier: ChosenClassifier | None
    cfg: float | None

    def config_of_classes(self, config: RunConfig) -> RunConfig:
        """The run's configuration, but with the classes that samples can be asked to show."""
        classes = config.model.classes
        if self.cfg == 0:
            # the images know of none
            classes = 0
        elif self.classifier is not None:
            classes = self.classifier.config.model.classes
        return dataclasses.replace(config, model=dataclasses.replace(config.model, classes=classes))

    def class_names(self, run: Run, config: RunConfig) -> Sequence[str]:
        """The names of those classes, as far as they are known."""
        own = _names_in(run) if config.model.classes else ()
        return own or (_names_in(self.classifier.run) if self.classifier else ())


def find_guidance(request: GuidanceRequest, run: Run, config: RunConfig, runs_home: Path) -> Guidance:
    """What was asked for, checked against the run and its configuration; UsageError or MissingError."""
    _check_numbers(request)
    if request.classifier is None:
        if request.scale is not None:
            raise UsageError(
                "--guidance scales the gradient of a classifier, and none is given",
                remedy="add --classifier RUN; --cfg W guides by the network alone",
            )
        if request.cfg is not None:
            _check_label_drop(run, config)
        return Guidance(classifier=None, cfg=request.cfg)
    if request.cfg is not None:
        raise UsageError(
            "--classifier and --cfg exclude each other", remedy="both lead towards the class; choose one"
        )
    return Guidance(classifier=_chosen(request.classifier, request.scale, run, config, runs_home), cfg=None)


def check_classes_asked(guidance: Guidance, classes: str | None) -> None:
    """UsageError for classes that would show nowhere."""
    if guidance.cfg == 0 and classes is not None:
        raise UsageError("--cfg 0 draws without classes", where="--class", remedy="leave one of them out")


def _check_numbers(request: GuidanceRequest) -> None:
    for flag, number in (("--guidance", request.scale), ("--cfg", request.cfg)):
        if number is not None and not (math.isfinite(number) and number >= 0):
            raise UsageError(f"{flag} is {number}", where=flag, remedy="a number of at least 0")


def _check_label_drop(run: Run, config: RunConfig) -> None:
    if not config.model.classes:
        raise UsageError(f"the network of {run.id} knows no classes", where="--cfg", remedy="leave --cfg out")
    if not config.training.label_drop:
        raise UsageError(
            f"the network of {run.id} has not learned to do without classes",
            where="--cfg",
            remedy="it needs a run trained with training.label_drop above 0, such as 0.1; "
            "--classifier RUN guides any",
        )


def _chosen(
    reference: str, scale: float | None, run: Run, config: RunConfig, runs_home: Path
) -> ChosenClassifier:
    named = checkpoint_reference(reference)
    classifier = open_run(runs_home, named.run)
    its_config = current_config(classifier)
    _check_kind(classifier, its_config)
    _check_images(classifier, its_config, run, config)
    _check_noise(classifier, its_config, run, config)
    return ChosenClassifier(
        run=classifier,
        config=its_config,
        step=named.step,
        scale=_PLAIN_SCALE if scale is None else scale,
        remarks=_class_remarks(classifier, its_config, run, config),
    )


def _check_kind(classifier: Run, its_config: RunConfig) -> None:
    if its_config.model.kind != "classifier":
        raise UsageError(
            f"{classifier.id} is no classifier",
            where=f"--classifier: its model.kind is {its_config.model.kind}",
            remedy="name a run whose model.kind is classifier",
        )
    if not its_config.training.noisy:
        raise UsageError(
            f"{classifier.id} has seen clean images only, and samples are noisy until the end",
            where="--classifier: its training.noisy is false",
            remedy="name a classifier that was trained with training.noisy = true",
        )


def _check_images(classifier: Run, its_config: RunConfig, run: Run, config: RunConfig) -> None:
    for name, unit in (("resolution", "pixels"), ("channels", "channels")):
        theirs, ours = getattr(its_config.data, name), getattr(config.data, name)
        if theirs != ours:
            raise UsageError(
                f"{classifier.id} sees images of {theirs} {unit}, {run.id} draws images of {ours}",
                where="--classifier",
                remedy=f"name a classifier with data.{name} = {ours}",
            )


def _check_noise(classifier: Run, its_config: RunConfig, run: Run, config: RunConfig) -> None:
    for name in _SAME_NOISE:
        theirs, ours = getattr(its_config.diffusion, name), getattr(config.diffusion, name)
        if theirs != ours:
            raise UsageError(
                f"{classifier.id} knows another noise than that of {run.id}",
                where=f"--classifier: its diffusion.{name} is {theirs}, not {ours}",
                remedy=f"name a classifier with diffusion.{name} = {ours}",
            )


def _class_remarks(classifier: Run, its_config: RunConfig, run: Run, config: RunConfig) -> tuple[str, ...]:
    """What to say of the two runs' classes; UsageError when they cannot be the same."""
    if not config.model.classes:
        return ()
    if its_config.model.classes != config.model.classes:
        raise UsageError(
            f"{classifier.id} knows {its_config.model.classes} classes, {run.id} {config.model.classes}",
            where="--classifier",
            remedy="name a classifier of the same classes",
        )
    theirs, ours = _names_in(classifier), _names_in(run)
    if not theirs or not ours or theirs == ours:
        return ()
    for number, name in enumerate(ours):
        if name in theirs and theirs.index(name) != number:
            raise UsageError(
                f"{run.id} and {classifier.id} do not number their classes alike",
                where=f"--classifier: {name!r} is {number} for the first, {theirs.index(name)} for the other",
                remedy="name a classifier of the same classes in the same order",
            )
    return (f"warning: {classifier.id} has other names for the classes than {run.id}; the numbers are taken",)


def _names_in(run: Run) -> tuple[str, ...]:
    return known_dataset(run.paths, run.record).class_names
