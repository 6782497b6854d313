"""The configuration is there at once: no torch behind it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import diffcli.config


def test_importing_the_configuration_loads_no_torch():
    modules = [f"diffcli.config.{path.stem}" for path in Path(diffcli.config.__file__).parent.glob("*.py")]
    assert "diffcli.config.resolve" in modules
    program = (
        f"import importlib, sys\n[importlib.import_module(name) for name in {modules!r}]\n"
        "print([name for name in ('torch', 'numpy', 'typer', 'rich') if name in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert printed.stdout.strip() == "[]"
