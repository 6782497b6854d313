"""Which preset's network a state dict is: by its names and shapes, and by the name of its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffcli.config.presets import PresetInfo, list_presets
from diffcli.config.resolve import resolve
from diffcli.config.sections import RunConfig
from diffcli.errors import UsageError
from diffcli.interchange.openai_names import to_published
from diffcli.models.build import build_network

Shapes = Mapping[str, tuple[int, ...]]
_SHOWN_DIFFERENCES = 3
_CHOOSE = "--preset"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a user says of a file: a preset, by name or path, or none, and settings besides."""

    preset: str | None
    overrides: tuple[str, ...]

    def config(self, preset: str) -> RunConfig:
        """The configuration that they make with a preset; errors as of `resolve`."""
        return resolve(preset=preset, overrides=self.overrides).config


@dataclass(frozen=True, kw_only=True)
class Identified:
    """The preset of a file's network, by name or path, how it was found out, and what is odd about it."""

    preset: str
    how: str
    warnings: tuple[str, ...] = ()


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a state dict."""
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def published_shapes(config: RunConfig) -> dict[str, tuple[int, ...]]:
    """The names and shapes, in order, that a network has under the published names; takes no memory."""
    with torch.device("meta"):
        return shapes_of(to_published(build_network(config).state_dict(), config))


def differences(found: Shapes, expected: Shapes) -> str:
    """The first names and shapes that are not as expected, as one line; empty if all are."""
    wrong = [f"{name} is missing" for name in expected if name not in found]
    wrong += [f"{name} is not known" for name in found if name not in expected]
    wrong += [
        f"{name} is {list(found[name])}, needed is {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    more = len(wrong) - _SHOWN_DIFFERENCES
    return "; ".join(wrong[:_SHOWN_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")


def identify(path: Path, shapes: Shapes, choices: Choices) -> Identified:
    """Which preset the network in a file is of; the order of its names does not matter.

    Raises UsageError when the network is another than the user or the file's name says, when it is none that
    is known, and when several presets have it and nothing tells which; MissingError for no such preset.
    """
    named = _named(path)
    if choices.preset is not None:
        return _as_asked(path, shapes, choices, choices.preset, named)
    fitting = _fitting(shapes, choices)
    if named in fitting:
        return Identified(
            preset=named,
            how=f"by the name of the file; all {len(shapes)} names and shapes fit",
        )
    if not fitting:
        raise _none_fits(path, shapes, choices, named)
    contradiction = _contradiction(path, named)
    if len(fitting) > 1:
        raise UsageError(
            f"{path} is the network of {len(fitting)} presets: {', '.join(fitting)}",
            where=contradiction or "they differ in what names and shapes do not tell",
            remedy=f"say which: {_CHOOSE} {fitting[0]}",
        )
    return Identified(
        preset=fitting[0],
        how=f"by its {len(shapes)} names and shapes, which no other preset has",
        warnings=(f"warning: {contradiction}, and its shapes are of {fitting[0]}",) if contradiction else (),
    )


def _as_asked(path: Path, shapes: Shapes, choices: Choices, preset: str, named: str) -> Identified:
    wrong = differences(shapes, published_shapes(choices.config(preset)))
    if wrong:
        fitting = _fitting(shapes, Choices(preset=None, overrides=()))
        raise UsageError(
            f"{path} is not the network of preset {preset}",
            where=wrong,
            remedy=f"it is that of {' and of '.join(fitting)}: {_CHOOSE} {fitting[0]}"
            if fitting
            else "settings of the network can be given with --set model.NAME=VALUE",
        )
    differs = named and named != preset
    return Identified(
        preset=preset,
        how=f"as asked for; all {len(shapes)} names and shapes fit",
        warnings=(f"warning: {_contradiction(path, named)}",) if differs else (),
    )


def _named(path: Path) -> str:
    """The preset whose published file is called like this one, whatever the suffix; empty for none."""
    return next((info.name for info in list_presets() if _stem(info) == path.stem), "")


def _stem(info: PresetInfo) -> str | None:
    return Path(info.published_file).stem or None


def _contradiction(path: Path, named: str) -> str:
    return f"{path.name} is the name of preset {named}'s published file" if named else ""


def _fitting(shapes: Shapes, choices: Choices) -> Sequence[str]:
    """The presets that come with diffcli whose network, with the user's settings, has these shapes."""
    size = sum(torch.Size(shape).numel() for shape in shapes.values())
    fitting = []
    for info in list_presets():
        # building each network takes a tenth of a second, and a count that differs tells enough
        if not choices.overrides and info.parameters not in (0, size):
            continue
        try:
            config = choices.config(info.name)
        except UsageError:
            # the user's settings do not go with every preset
            continue
        if not differences(shapes, published_shapes(config)):
            fitting.append(info.name)
    return fitting


def _none_fits(path: Path, shapes: Shapes, choices: Choices, named: str) -> UsageError:
    if named:
        return UsageError(
            f"{path} has the name of preset {named}'s published file, but holds another network",
            where=differences(shapes, published_shapes(choices.config(named))),
            remedy=f"give a preset of its own settings: {_CHOOSE} ./mine.toml",
        )
    size = sum(torch.Size(shape).numel() for shape in shapes.values())
    return UsageError(
        f"{path} is the network of no preset: {len(shapes)} tensors, {size:,} parameters, "
        f"first {next(iter(shapes))}",
        where="names and shapes are compared with those of every preset",
        remedy=f"name the preset it comes near to, with --set model.NAME=VALUE for what differs, "
        f"or a file with its settings: {_CHOOSE} ./mine.toml",
    )
