"""A place with prepared digits and one short run, made by the program itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from diffcli_process import Ended, run_diffcli

TINY_PRESET = """
[preset]
title = "digits, too small to learn them"
[data]
name = "digits"
resolution = 8
channels = 1
[model]
channels = 32
channel_mult = [1]
res_blocks = 1
attention_resolutions = []
heads = 1
classes = 10
[diffusion]
steps = 20
[training]
steps = 3
batch_size = 4
ema_rates = [0.9]
log_every = 1
save_every = 2
keep_last = 5
[sampling]
steps = 5
"""


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """A directory with tiny.toml, data/digits and runs/run-1, and how their commands ended."""

    directory: Path
    prepared: Ended
    trained: Ended


@pytest.fixture(scope="session")
def workshop(tmp_path_factory) -> Workshop:
    """Read it; a test that changes something in it works on a copy."""
    directory = tmp_path_factory.mktemp("workshop")
    (directory / "tiny.toml").write_text(TINY_PRESET)
    prepared = run_diffcli("prepare", "digits", directory=directory)
    trained = run_diffcli("train", "--preset", "./tiny.toml", "--name", "größe ✓", directory=directory)
    assert (prepared.status, trained.status) == (0, 0), (prepared.err, trained.err)
    return Workshop(directory=directory, prepared=prepared, trained=trained)
