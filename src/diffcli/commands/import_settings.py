"""What the files of an import are to the run that they become, and the configuration that it gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.import_source import ImportSource
from diffcli.config.resolve import FlagSetting, Resolved, resolve
from diffcli.config.sections import RunConfig, TrainingConfig
from diffcli.errors import UsageError
from diffcli.interchange.identify import Choices, Identified, identify
from diffcli.interchange.original_directory import OriginalFiles

_RATES = "training.ema_rates"
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


def settle(source: ImportSource, choices: Choices, step: int | None) -> ImportSettings:
    """Find out which preset the network is of, and fit its settings to the files.

    step: None for what the names of the files tell, or else the preset's last. Raises what `identify` does,
    and UsageError for settings that contradict the files.
    """
    files = source.files
    identified = identify(source.first, source.shapes, choices)
    training = choices.config(identified.preset).training
    model, averages = _roles(files, training)
    _check_overrides(files, choices.overrides)
    if step is None:
        step = training.steps if files.step is None else files.step
    flags = tuple(_flags(training, tuple(averages), step))
    return ImportSettings(
        identified=identified,
        resolved=resolve(preset=identified.preset, overrides=choices.overrides, flags=flags),
        step=step,
        model=model,
        averages=averages,
        optimizer=files.optimizer,
        notices=(*identified.warnings, *files.warnings, *_notices(source, training, averages, step)),
    )


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


def _check_overrides(files: OriginalFiles, overrides: Sequence[str]) -> None:
    asked = {text.partition("=")[0].strip() for text in overrides}
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
        yield FlagSetting(flag=_THE_FILES, path="sampling.ema", value="none")
    if step > training.steps:
        yield FlagSetting(flag=_THE_FILES, path="training.steps", value=step)
    if training.ema_snapshot_every:
        yield FlagSetting(flag=_THE_FILES, path="training.ema_snapshot_every", value=0)


def _notices(
    source: ImportSource, training: TrainingConfig, averages: Mapping[float, Path], step: int
) -> Iterator[str]:
    if training.ema_rates and not averages:
        yield "warning: there is no average among the files: the run has raw weights only"
    if step > training.steps:
        yield f"note: training.steps is {step}, which are done, and not {training.steps}"
    if source.in_half_precision():
        yield "note: weights of half precision are kept as float32, which changes none of them"
