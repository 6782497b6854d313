"""What the files of an import are to the run that they become, and the configuration that it gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.import_source import ImportSource
from diffcli.config.resolve import FlagSetting, Resolved
from diffcli.config.sections import EmaChoice, RunConfig, TrainingConfig
from diffcli.errors import UsageError
from diffcli.interchange.identify import Choices, Identified, identify
from diffcli.interchange.original_directory import OriginalFiles

_RATES = "training.ema_rates"
_SAMPLED = "sampling.ema"
# where settings come from that no user gave, for messages
_THE_FILES = "the files"


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """The configuration of the run, the step that it is at, and what each file is.

    model: the raw weights, None if there are none; averages: by rate; notices: for the user to read.
    """

    identified: Identified
    resolved: Resolved
    step: int
    model: Path | None
    averages: Mapping[float, Path]
    optimizer: Path | None
    notices: tuple[str, ...]

    @property
    def config(self) -> RunConfig:
        """The configuration of the run."""
        return self.resolved.config

    @property
    def resumable(self) -> bool:
        """Whether the run can be trained on: it has raw weights, and its learning rate is not down to 0."""
        return self.model is not None and not _annealed(self.config.training, self.step)


def settle(source: ImportSource, choices: Choices, step: int | None) -> ImportSettings:
    """Find out which preset the network is of, and fit its settings to the files.

    step: None for what the names of the files tell, or else the preset's last. Raises what `identify` does,
    and UsageError for settings that contradict the files.
    """
    files = source.files
    identified = identify(source.first, source.shapes, choices)
    config = choices.config(identified.preset)
    training = config.training
    model, averages = _roles(files, training)
    _check_overrides(files, choices.overrides)
    if step is None:
        step = training.steps if files.step is None else files.step
    flags = [*_flags(training, tuple(averages), step)]
    if _SAMPLED not in _asked(choices.overrides):
        flags += _sampled(config.sampling.ema, tuple(averages), has_model=model is not None)
    resolved = choices.resolved(identified.preset, flags)
    _require_weights_to_sample(resolved.config, has_model=model is not None)
    return ImportSettings(
        identified=identified,
        resolved=resolved,
        step=step,
        model=model,
        averages=averages,
        optimizer=files.optimizer,
        notices=(
            *identified.warnings,
            *files.warnings,
            *_notices(source, training, averages, step, has_model=model is not None),
        ),
    )


def _annealed(training: TrainingConfig, step: int) -> bool:
    return 0 < training.lr_anneal_steps <= step


def _roles(files: OriginalFiles, training: TrainingConfig) -> tuple[Path | None, Mapping[float, Path]]:
    """Which file is the raw weights, and which are averages, by rate."""
    lone = next((average.path for average in files.averages if average.rate is None), None)
    if lone is None:
        found = {average.rate: average.path for average in files.averages if average.rate is not None}
        # in the order of the preset, as its first is the one to sample from
        rates = [rate for rate in training.ema_rates if rate in found]
        rates += [rate for rate in found if rate not in rates]
        return files.model, {rate: found[rate] for rate in rates}
    # the published files are the first average of their preset; a classifier's has none
    return (None, {training.ema_rates[0]: lone}) if training.ema_rates else (lone, {})


def _asked(overrides: Sequence[str]) -> set[str]:
    return {text.partition("=")[0].strip() for text in overrides}


def _check_overrides(files: OriginalFiles, overrides: Sequence[str]) -> None:
    asked = _asked(overrides)
    tells = files.model is not None or any(average.rate is not None for average in files.averages)
    if _RATES in asked and tells:
        raise UsageError(f"{_RATES} is what the names of the files say", where="--set", remedy="leave it out")
    if "training.ema_snapshot_every" in asked:
        raise UsageError(
            "an imported run has no power-function averages, so it keeps no snapshots of them",
            where="--set training.ema_snapshot_every",
            remedy="start a new run from it with --from, which begins them anew",
        )


def _flags(training: TrainingConfig, rates: tuple[float, ...], step: int) -> Iterator[FlagSetting]:
    """The settings that the files decide."""
    if rates != training.ema_rates:
        yield FlagSetting(flag=_THE_FILES, path=_RATES, value=rates)
    if not rates:
        yield FlagSetting(flag=_THE_FILES, path="training.ema_warmup_steps", value=0)
    if step > training.steps:
        yield FlagSetting(flag=_THE_FILES, path="training.steps", value=step)
    if training.ema_snapshot_every:
        yield FlagSetting(flag=_THE_FILES, path="training.ema_snapshot_every", value=0)


def _sampled(choice: EmaChoice, rates: tuple[float, ...], *, has_model: bool) -> Iterator[FlagSetting]:
    """Which weights to sample from, where the files do not have the preset's choice."""
    if not rates:
        yield FlagSetting(flag=_THE_FILES, path=_SAMPLED, value="none")
    elif (choice == "none" and not has_model) or (isinstance(choice, float) and choice not in rates):
        yield FlagSetting(flag=_THE_FILES, path=_SAMPLED, value="first")


def _require_weights_to_sample(config: RunConfig, *, has_model: bool) -> None:
    if config.sampling.ema == "none" and not has_model:
        raise UsageError(
            "there are no raw weights among the files to sample from",
            where=f"{_SAMPLED} = none",
            remedy=f"leave it out, or say --set {_SAMPLED}=first",
        )


def _notices(
    source: ImportSource,
    training: TrainingConfig,
    averages: Mapping[float, Path],
    step: int,
    *,
    has_model: bool,
) -> Iterator[str]:
    if training.ema_rates and not averages:
        yield "warning: there is no average among the files: the run has raw weights only"
    if step > training.steps:
        yield f"note: training.steps is {step}, which are done, and not {training.steps}"
    if has_model and _annealed(training, step):
        yield (
            "note: the learning rate is down to 0, so the run cannot be resumed: start one "
            "with --from, or import it with --set training.lr_anneal_steps=0"
        )
    if source.in_half_precision():
        yield "note: weights of half precision are kept as float32, which changes none of them"
