"""The configuration that a run has by now, and what it is good for."""

from __future__ import annotations

from diffcli.config.encode import config_from_json
from diffcli.config.sections import RunConfig
from diffcli.errors import UsageError
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


def require_diffusion_model(run: Run) -> None:
    """UsageError for the run of a classifier."""
    if current_config(run).model.kind == "classifier":
        raise UsageError(
            f"{run.id} is a classifier: it draws no images and has no likelihood",
            where="its model.kind is classifier",
            remedy=f"it guides the samples of others: diffcli sample RUN --classifier {run.id}",
        )
