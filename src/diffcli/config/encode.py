"""A configuration as JSON, for the records of a run, and as TOML, for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from diffcli.config.catalog import run_sections, run_settings
from diffcli.config.decode import build_config, decode, requested_in
from diffcli.config.given import Origin
from diffcli.config.sections import RunConfig
from diffcli.config.toml import value_text
from diffcli.errors import CorruptError

JSONValue = bool | int | float | str | list[int] | list[float]


def config_to_json(config: RunConfig) -> dict[str, dict[str, JSONValue]]:
    """Every setting of a configuration, section by section, in values that JSON has."""
    return {
        section: {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(getattr(config, section)).items()
        }
        for section in run_sections()
    }


def config_from_json(value: object) -> RunConfig:
    """The configuration that `config_to_json` gave, read as strictly as any other.

    A setting that is missing takes its default, so that records from before it existed stay readable.
    CorruptError tells all other differences.
    """
    if not isinstance(value, Mapping):
        raise CorruptError("a recorded configuration is not a table of sections")
    decoded = decode([requested_in(value, run_settings(), Origin(kind="run"))], run_settings())
    if decoded.problems:
        raise CorruptError(
            "a recorded configuration cannot be read",
            where="\n".join(problem.line for problem in decoded.problems),
        )
    return build_config(decoded.values)


def config_to_toml(config: RunConfig) -> str:
    """A configuration as the text of a preset file, every setting below its help."""
    tables = []
    for section, settings in config_to_json(config).items():
        lines = [f"[{section}]"]
        for name, value in settings.items():
            lines += [f"# {run_settings()[f'{section}.{name}'].help}", f"{name} = {value_text(value)}"]
        tables.append("\n".join(lines))
    return "\n\n".join(tables) + "\n"
