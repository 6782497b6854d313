"""Which preset's network a state dict is: by its names and shapes, and by the name of its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffcli.config.catalog import SettingValue
from diffcli.config.presets import PresetInfo, list_presets
from diffcli.config.problems import refuse
from diffcli.config.resolve import FlagSetting, Resolved, read_overrides, resolve
from diffcli.config.sections import RunConfig
from diffcli.errors import UsageError
from diffcli.interchange.openai_names import to_published
from diffcli.models.build import build_network

Shapes = Mapping[str, tuple[int, ...]]
_SHOWN_DIFFERENCES = 3
_CHOOSE = "--preset"
# a network that learned to do without the label has a row more here than there are classes
_LABELS = "label_emb.weight"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a user says of a file: a preset, by name or path, or none, and settings besides."""

    preset: str | None
    overrides: tuple[str, ...]

    def config(self, preset: str) -> RunConfig:
        """The configuration that they make with a preset; errors as of `resolve`."""
        return self.resolved(preset).config

    def resolved(self, preset: str, flags: Sequence[FlagSetting] = ()) -> Resolved:
        """The same, with what the files decide besides, and where each value comes from."""
        return resolve(preset=preset, overrides=self.overrides, flags=(*self._consequences(), *flags))

    def _consequences(self) -> tuple[FlagSetting, ...]:
        """What goes without saying where a user says that there are no averages."""
        said = read_overrides(self.overrides).values
        if said.get("training.ema_rates") != ():
            return ()
        without: Mapping[str, SettingValue] = {"training.ema_warmup_steps": 0, "sampling.ema": "none"}
        return tuple(
            FlagSetting(flag="--set training.ema_rates=[]", path=path, value=value)
            for path, value in without.items()
            if path not in said
        )


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
    expected = published_shapes(choices.config(preset))
    wrong = differences(shapes, expected)
    if wrong and not differences(_without_a_label(shapes), expected):
        raise _one_label_more(path, shapes, preset)
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
    """The presets that come with diffcli whose network, with the user's settings, has these shapes.

    UsageError for settings that are wrong, or go with no preset.
    """
    size = sum(torch.Size(shape).numel() for shape in shapes.values())
    # what is wrong with the settings themselves is wrong with every preset
    refuse(read_overrides(choices.overrides).problems)
    fitting: list[str] = []
    refused: list[UsageError] = []
    for info in list_presets():
        # building each network takes a tenth of a second, and a count that differs tells enough
        if not choices.overrides and info.parameters not in (0, size):
            continue
        try:
            config = choices.config(info.name)
        except UsageError as error:
            # the user's settings do not go with every preset
            refused.append(error)
            continue
        if not differences(shapes, published_shapes(config)):
            fitting.append(info.name)
    if len(refused) == len(list_presets()):
        raise refused[0]
    return fitting


def _without_a_label(shapes: Shapes) -> Shapes:
    """The shapes of the same network with a class less, if it has any."""
    rows, *width = shapes.get(_LABELS, (0,))
    return {**shapes, _LABELS: (rows - 1, *width)} if rows > 1 else {}


def _one_label_more(path: Path, shapes: Shapes, preset: str) -> UsageError:
    return UsageError(
        f"{path} is the network of preset {preset} but for its labels, which are one more",
        where=f"{_LABELS} is {list(shapes[_LABELS])}",
        remedy="if the last one is for no label, add --set training.label_drop=0.1, or any share above 0",
    )


def _none_fits(path: Path, shapes: Shapes, choices: Choices, named: str) -> UsageError:
    fewer = _without_a_label(shapes)
    almost = _fitting(fewer, choices) if fewer else ()
    if almost:
        return _one_label_more(path, shapes, named if named in almost else " or ".join(almost))
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
