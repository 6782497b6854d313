"""A bench with a short run of three checkpoints, made once by the program itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from aftermath import assert_sound
from runs_in_processes import NEW, PRESET, Bench, fork, make_bench


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Iterator[Bench]:
    """Digits, and run-1 with checkpoints after 2, 4 and 6 steps, as it must be left; change only copies."""
    preset = PRESET.replace("steps = 12", "steps = 6").replace("save_every = 4", "save_every = 2")
    bench = make_bench(tmp_path_factory.mktemp("trained"), preset)
    fork(bench, *NEW).succeeds()
    yield bench
    assert [run.name for run in bench.runs.glob("run-*")] == ["run-1"]
    assert_sound(bench)


@pytest.fixture
def bench(trained, tmp_path) -> Bench:
    """A copy of the trained bench, to damage."""
    shutil.copytree(trained.directory, tmp_path / "bench")
    return Bench(directory=tmp_path / "bench")
