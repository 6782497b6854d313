"""What the registry's tests make runs from."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffcli.config.encode import config_to_json
from diffcli.config.sections import RunConfig
from diffcli.registry.create import NewRun
from diffcli.registry.run_record import DatasetFacts, Versions

Spawn = Callable[..., "subprocess.Popen[str]"]
_NOBODY = 65534


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A runs directory that does not exist yet."""
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def spec() -> NewRun:
    """A run named base."""
    return NewRun(
        name="base",
        preset="digits",
        command_line=("diffcli", "train", "--preset", "digits"),
        config=config_to_json(RunConfig()),
        total_steps=2000,
        versions=Versions(
            diffcli="0.1.0",
            python="3.11.7",
            torch="2.13.0",
            accelerate="1.15.0",
            numpy="2.0",
            safetensors="0.8.0",
            platform="Linux",
        ),
        git_commit=None,
        dataset=DatasetFacts(
            path="data/digits/train",
            content_hash="ab" * 32,
            weak_hash=False,
            count=1500,
            class_names=("zero", "one"),
        ),
    )


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts another Python on a piece of code, and kills it at the end if need be.

    The child's stdout is a pipe; wait for its first line with `readline`.
    """
    with contextlib.ExitStack() as stack:

        def start(code: str, *arguments: object) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", code, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def without_privileges() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A context in which permissions bind also when the tests run as root."""

    @contextlib.contextmanager
    def be_nobody() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(_NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return be_nobody


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody may reach, which pytest's are not."""
    directory = Path(tempfile.mkdtemp(prefix="diffcli-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)
