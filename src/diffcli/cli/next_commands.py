"""What to type after a preparation."""

from __future__ import annotations

import shlex
from pathlib import Path

from diffcli.cli.options import DATA_DEFAULT
from diffcli.config.presets import presets_on
from diffcli.records.datasets import PrepareResult


def after_preparing(result: PrepareResult, data_home: Path) -> str:
    """Training with the first preset that fits; a look at it, where there is no split to train on."""
    first = result.splits[0]
    path = shlex.quote(str(first.path))
    if first.split != "train":
        return f"diffcli prepare show {path}"
    presets = presets_on(result.name, result.recipe)
    if not presets:
        return f"diffcli train --preset PRESET --data {path}"
    command = f"diffcli train --preset {presets[0]}"
    if first.path.parent.name != result.name:
        # a folder of PNG files is found by its place only
        return f"{command} --data {path}"
    return command if data_home == DATA_DEFAULT else f"{command} --data-home {shlex.quote(str(data_home))}"
