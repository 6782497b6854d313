"""default < preset < --set < named flags: the configuration of a run, and where each value comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from diffcli.config.catalog import SettingValue, run_settings
from diffcli.config.decode import Decoded, build_config, decode
from diffcli.config.given import DEFAULT, Given, Origin, Requested
from diffcli.config.overrides import parse_overrides
from diffcli.config.presets import load_preset
from diffcli.config.problems import Problem, refuse, shortened, wrong_value
from diffcli.config.rules import violations
from diffcli.config.sections import RunConfig


@dataclass(frozen=True, kw_only=True)
class FlagSetting:
    """A named flag that stands for a setting, such as `--seed 3` for training.seed."""

    flag: str
    path: str
    value: SettingValue


@dataclass(frozen=True, kw_only=True)
class ResolvedSetting:
    """One setting of a configuration, by its dotted path, with where its value comes from."""

    path: str
    value: SettingValue
    origin: Origin
    help: str


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A configuration that can be run, and its settings one by one; `preset` is empty if none was used."""

    config: RunConfig
    settings: tuple[ResolvedSetting, ...]
    preset: str = ""

    @property
    def origins(self) -> Mapping[str, Origin]:
        """Where each value comes from, by dotted path."""
        return {setting.path: setting.origin for setting in self.settings}


def resolve(
    *, preset: str | None = None, overrides: Sequence[str] = (), flags: Sequence[FlagSetting] = ()
) -> Resolved:
    """The configuration of a new run.

    preset: a name or a path to a .toml file. overrides: the texts of `--set`, `training.lr=2e-4`.
    MissingError for an unknown preset; UsageError with all problems of preset, overrides and flags.
    """
    loaded = None if preset is None else load_preset(preset)
    sources = [] if loaded is None else [loaded.requested]
    sources += [parse_overrides(overrides, run_settings()), _requested_by(flags)]
    defaults = {path: setting.default for path, setting in run_settings().items()}
    return _settle(
        _Start(values=defaults, origin=DEFAULT),
        decode(sources, run_settings()),
        preset="" if loaded is None else loaded.info.name,
    )


def read_overrides(overrides: Sequence[str]) -> Decoded:
    """What the texts of `--set` say by themselves, and what is wrong with them whatever the preset."""
    return decode((parse_overrides(overrides, run_settings()),), run_settings())


def revise(
    config: RunConfig,
    *,
    run: str,
    changeable: Sequence[str],
    overrides: Sequence[str] = (),
    flags: Sequence[FlagSetting] = (),
) -> Resolved:
    """The configuration of run `run` with some settings changed.

    changeable: the sections ("sampling") and settings ("training.steps") that may be.
    UsageError with all problems.
    """
    start = _Start(values=_values_of(config), origin=Origin(kind="run", name=run))
    decoded = decode((parse_overrides(overrides, run_settings()), _requested_by(flags)), run_settings())
    fixed = _fixed_but_changed(decoded, start, changeable)
    return _settle(start, replace(decoded, problems=(*decoded.problems, *fixed)), preset="")


@dataclass(frozen=True, kw_only=True)
class _Start:
    """The values of all settings before anything is asked for, and their one origin."""

    values: Mapping[str, SettingValue]
    origin: Origin


def _settle(start: _Start, decoded: Decoded, *, preset: str) -> Resolved:
    """Lay what was asked for over the start, and refuse the whole if anything is wrong with it."""
    values = {**start.values, **decoded.values}
    origins = {path: decoded.origins.get(path, start.origin) for path in values}
    config = build_config(values)
    unsure = {path for problem in decoded.problems for path in problem.unsure}
    broken_rules = [
        wrong_value(found.path, found.value, found.allowed, origin=str(origins[found.path]))
        for found in violations(config, unsure=unsure)
    ]
    refuse([*decoded.problems, *broken_rules])
    settings = tuple(
        ResolvedSetting(path=path, value=value, origin=origins[path], help=run_settings()[path].help)
        for path, value in values.items()
    )
    return Resolved(config=config, settings=settings, preset=preset)


def _requested_by(flags: Iterable[FlagSetting]) -> Requested:
    return Requested(
        given=tuple(
            Given(path=flag.path, value=flag.value, origin=Origin(kind="flag", name=flag.flag))
            for flag in flags
        )
    )


def _values_of(config: RunConfig) -> dict[str, SettingValue]:
    sections = {path: path.partition(".") for path in run_settings()}
    return {path: getattr(getattr(config, section), name) for path, (section, _, name) in sections.items()}


def _fixed_but_changed(decoded: Decoded, start: _Start, changeable: Sequence[str]) -> tuple[Problem, ...]:
    complaint = f"cannot differ from {start.origin.name}'s; what can is {', '.join(changeable)}"
    return tuple(
        Problem(
            subject=f"{path} = {shortened(value)}", complaint=complaint, origin=str(decoded.origins[path])
        )
        for path, value in decoded.values.items()
        if value != start.values[path] and not {path, path.partition(".")[0]} & set(changeable)
    )
