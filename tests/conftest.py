"""What every trial with processes of its own needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from runs_in_processes import Bench, kill_survivors, make_bench

# a busy machine is no failure
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """End what a failed test leaves."""
    yield
    kill_survivors()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A directory with prepared digits and a tiny preset."""
    return make_bench(tmp_path)
