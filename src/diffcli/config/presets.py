"""Presets: paper checkpoints, each with its model, diffusion, data and training settings in one TOML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from diffcli.config.catalog import run_settings, section_settings
from diffcli.config.decode import decode, requested_in
from diffcli.config.given import Origin, Requested
from diffcli.config.problems import shortened
from diffcli.config.sections import DataConfig, ResizeRecipe
from diffcli.config.settings import at_least, setting
from diffcli.config.suggest import did_you_mean, nearest
from diffcli.config.toml import read_toml
from diffcli.errors import MissingError

_SUFFIX = ".toml"
_TABLE = "preset"


@dataclass(frozen=True, kw_only=True)
class PresetTable:
    """What a preset says of itself, in the [preset] table of its file."""

    title: str = setting("", "one line: the data, the size, and what is special")
    published_file: str = setting("", "file name of the published checkpoint; empty: none")
    published_at: str = setting("", "address of the directory that holds the published checkpoint")
    licence: str = setting("", "terms of the published checkpoint")
    parameters: int = setting(0, "parameters of the network; 0: not stated", at_least(0))
    notes: str = setting("", "remarks for those who train or compare")


@dataclass(frozen=True, kw_only=True)
class PresetInfo(PresetTable):
    """A preset's [preset] table, and its name, which is its file's."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A preset as its file has it; `resolve` checks its settings together with all others."""

    info: PresetInfo
    requested: Requested


def preset_directory() -> Path:
    """The directory of the presets that come with diffcli: in an installed wheel or in a source tree."""
    package = Path(__file__).resolve().parents[1]
    in_wheel = package / "presets"
    in_source_tree = package.parents[1] / "presets"
    if in_wheel.is_dir():
        return in_wheel
    # beside src/, and in no other place that happens to be called presets
    if (package.parents[1] / "pyproject.toml").is_file() and in_source_tree.is_dir():
        return in_source_tree
    raise MissingError(
        "the presets of this installation are missing",
        where=f"neither {in_wheel} nor {in_source_tree}",
        remedy="install diffcli again",
    )


def preset_names() -> tuple[str, ...]:
    """Names of the presets that come with diffcli, sorted."""
    return tuple(sorted(path.stem for path in preset_directory().glob(f"*{_SUFFIX}")))


def list_presets() -> tuple[PresetInfo, ...]:
    """What each preset that comes with diffcli says of itself, sorted by name."""
    return tuple(load_preset(name).info for name in preset_names())


def presets_on(dataset: str, recipe: str = "") -> tuple[str, ...]:
    """Names of the presets that train on a prepared dataset of this name, sorted.

    recipe: by which it was resized; presets that want it by another are left out, unless it is "" or one that
    presets do not know.
    """
    known = get_args(ResizeRecipe)

    def trains_on_it(preset: Preset) -> bool:
        given = {given.path: given.value for given in preset.requested.given}
        wanted = given.get("data.resize_recipe", DataConfig.resize_recipe)
        return given.get("data.name") == dataset and (recipe not in known or recipe == wanted)

    return tuple(name for name in preset_names() if trains_on_it(load_preset(name)))


def load_preset(name_or_path: str) -> Preset:
    """The preset of that name, or the one in the file if a path to a .toml file is given.

    MissingError if there is none; UsageError if its file is no TOML. Wrong settings are kept for `resolve`.
    """
    is_path = name_or_path.endswith(_SUFFIX) or "/" in name_or_path
    if not is_path and name_or_path not in preset_names():
        raise _unknown_preset(name_or_path)
    path = Path(name_or_path) if is_path else preset_directory() / f"{name_or_path}{_SUFFIX}"
    return _read_preset(path, Origin(kind="preset", name=name_or_path))


def _read_preset(path: Path, origin: Origin) -> Preset:
    of_table = section_settings(_TABLE, PresetTable)
    requested = requested_in(read_toml(path), {**of_table, **run_settings()}, origin)
    about = [given for given in requested.given if given.path.startswith(f"{_TABLE}.")]
    table = decode([Requested(given=tuple(about))], of_table)
    fields: dict[str, Any] = {name.removeprefix(f"{_TABLE}."): value for name, value in table.values.items()}
    return Preset(
        info=PresetInfo(name=path.stem, **fields),
        requested=Requested(
            given=tuple(given for given in requested.given if given not in about),
            problems=(*requested.problems, *table.problems),
        ),
    )


def _unknown_preset(name: str) -> MissingError:
    names = preset_names()
    meant = did_you_mean(nearest(name, names))
    return MissingError(
        f"no preset is called {shortened(name)}",
        where=meant or f"there are {', '.join(names)}",
        remedy="a file of your own is named by its path, such as ./mine.toml",
    )
