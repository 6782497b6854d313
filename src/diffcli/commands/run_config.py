"""The configuration that a run has by now."""

from __future__ import annotations

from diffcli.config.encode import config_from_json
from diffcli.config.sections import RunConfig
from diffcli.registry.create import Run
from diffcli.registry.run_record import read_attempts


def current_config(run: Run) -> RunConfig:
    """The configuration in the run's record, with what its latest attempt changed."""
    attempts = read_attempts(run.paths)
    sections = {section: dict(settings) for section, settings in run.record.config.items()}
    for change in attempts[-1].changes if attempts else ():
        section, _, name = change.key.partition(".")
        sections[section][name] = change.after
    return config_from_json(sections)
