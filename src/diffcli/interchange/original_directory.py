"""The files of a training by the original programs: which belong together, and what is missing of them.

Their names are all there is: model200000.pt, ema_0.9999_200000.pt, opt200000.pt. Source: the logging and
saving of the reference (tests/golden/README.md, section 4b).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from diffcli.errors import MissingError, UsageError

_MODEL = re.compile(r"model(\d+)\.(?:pt|safetensors)")
_AVERAGE = re.compile(r"ema_(\d+(?:\.\d+)?(?:e-\d+)?)_(\d+)\.(?:pt|safetensors)")
_OPTIMIZER = re.compile(r"opt(\d+)\.pt")
_NAMES = "model200000.pt, ema_0.9999_200000.pt, opt200000.pt"


@dataclass(frozen=True, kw_only=True)
class AverageFile:
    """A file of averaged weights; rate: None where its name does not tell."""

    rate: float | None
    path: Path


@dataclass(frozen=True, kw_only=True)
class OriginalFiles:
    """What belongs together of one training; step: None where no name tells.

    warnings: what is missing, and what that means.
    """

    step: int | None
    model: Path | None
    averages: tuple[AverageFile, ...]
    optimizer: Path | None
    warnings: tuple[str, ...] = ()

    @property
    def weights(self) -> tuple[Path, ...]:
        """The files of weights, raw ones first."""
        return (*([self.model] if self.model else []), *(average.path for average in self.averages))


@dataclass(kw_only=True)
class _Step:
    """The files of one step."""

    model: Path | None = None
    averages: dict[float, Path] = field(default_factory=dict)
    optimizer: Path | None = None


def files_named_by(path: Path) -> OriginalFiles:
    """What to import when a user names this file: a model file with its neighbours, any other file alone.

    UsageError for the file of an optimizer.
    """
    if _OPTIMIZER.fullmatch(path.name):
        raise UsageError(
            f"{path} is the state of an optimizer by its name, not weights",
            remedy=f"give the model file beside it, or the directory: {path.parent}",
        )
    if match := _MODEL.fullmatch(path.name):
        step = int(match[1])
        found = _together(path.parent, _steps_in(path.parent), step)
        return OriginalFiles(
            step=step,
            model=path,
            averages=found.averages,
            optimizer=found.optimizer,
            warnings=found.warnings,
        )
    match = _AVERAGE.fullmatch(path.name)
    return OriginalFiles(
        step=int(match[2]) if match else None,
        model=None,
        averages=(AverageFile(rate=float(match[1]) if match else None, path=path),),
        optimizer=None,
    )


def files_in(directory: Path, step: int | None) -> OriginalFiles:
    """The files of one step of a training's directory: the newest that is complete, or the one asked for.

    Complete are raw weights, each average that the directory has of any step, and the optimizer's state.
    MissingError when there are none, or none of that step.
    """
    steps = _steps_in(directory)
    weights = [number for number, files in steps.items() if files.model or files.averages]
    if not weights:
        raise MissingError(
            f"{directory} holds no file of an original training",
            where=f"looked for names such as {_NAMES}",
            remedy="give the file of weights itself: diffcli runs import FILE",
        )
    if step is not None and step not in weights:
        raise MissingError(
            f"{directory} holds no weights of step {step}",
            where=f"steps there: {', '.join(str(number) for number in sorted(weights))}",
        )
    rates = {rate for files in steps.values() for rate in files.averages}
    complete = [
        number
        for number, files in steps.items()
        if files.model and files.optimizer and rates <= set(files.averages)
    ]
    newest = max(weights)
    chosen = step if step is not None else max(complete, default=newest)
    found = _together(directory, steps, chosen)
    passed_over: tuple[str, ...] = ()
    if step is None and chosen != newest:
        passed_over = (
            f"warning: the files of step {newest} are not complete, so those of {chosen} are taken; "
            f"--step {newest} takes them as they are",
        )
    return OriginalFiles(
        step=chosen,
        model=found.model,
        averages=found.averages,
        optimizer=found.optimizer,
        warnings=(*passed_over, *found.warnings),
    )


def _steps_in(directory: Path) -> Mapping[int, _Step]:
    steps: dict[int, _Step] = {}
    # of two files that differ only in their suffix the .pt comes first
    for path in sorted(entry for entry in directory.iterdir() if entry.is_file()):
        if match := _MODEL.fullmatch(path.name):
            files = steps.setdefault(int(match[1]), _Step())
            files.model = files.model or path
        elif match := _AVERAGE.fullmatch(path.name):
            steps.setdefault(int(match[2]), _Step()).averages.setdefault(float(match[1]), path)
        elif match := _OPTIMIZER.fullmatch(path.name):
            steps.setdefault(int(match[1]), _Step()).optimizer = path
    return steps


def _together(directory: Path, steps: Mapping[int, _Step], step: int) -> OriginalFiles:
    files = steps[step]
    rates = {rate for other in steps.values() for rate in other.averages}
    warnings = [
        f"warning: ema_{rate}_{step:06d}.pt is missing from {directory}, so the run has no such average"
        for rate in sorted(rates - set(files.averages), reverse=True)
    ]
    if files.model is None:
        warnings.append(
            f"warning: model{step:06d}.pt is missing from {directory}: without raw weights the run can be "
            "sampled, evaluated and started from, not resumed"
        )
    elif files.optimizer is None:
        warnings.append(
            f"warning: opt{step:06d}.pt is missing from {directory}: when the run is resumed, "
            "the moments of its optimizer begin at zero"
        )
    return OriginalFiles(
        step=step,
        model=files.model,
        # as the presets list them, the longest average first
        averages=tuple(
            AverageFile(rate=rate, path=path) for rate, path in sorted(files.averages.items(), reverse=True)
        ),
        # moments without the weights that they belong to are of no use
        optimizer=files.optimizer if files.model else None,
        warnings=tuple(warnings),
    )
