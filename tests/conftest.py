"""What every trial with processes of its own needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runs_in_processes import Bench, kill_survivors, make_bench


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """End what a failed test leaves."""
    yield
    kill_survivors()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A directory with prepared digits and a tiny preset."""
    return make_bench(tmp_path)
