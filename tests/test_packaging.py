"""The wheel holds all that the program needs, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from diffcli.config.presets import preset_directory
from diffcli_process import shell_environment

# building needs hatchling from the package index
pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(directory), str(PROJECT)],
        check=True,
        timeout=250,
    )
    (file,) = directory.glob("*.whl")
    return zipfile.ZipFile(file)


def test_the_wheel_holds_the_package_its_presets_and_its_data(wheel):
    names = set(wheel.namelist())
    package = PROJECT / "src" / "diffcli"
    sources = {
        f"diffcli/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    presets = {f"diffcli/presets/{path.name}" for path in (PROJECT / "presets").glob("*.toml")}
    assert len(presets) >= 9
    assert "diffcli/data/sources/digits.npz" in sources
    assert {name for name in names if ".dist-info/" not in name} == sources | presets


def test_the_digits_come_with_their_attribution(wheel):
    texts = [
        wheel.read(name).decode()
        for name in wheel.namelist()
        if name.startswith("diffcli/data/") and name.endswith((".txt", ".md", ".py"))
    ]
    assert any("CC BY 4.0" in text and "Optical Recognition of Handwritten Digits" in text for text in texts)


def test_the_metadata_are_those_of_the_project(wheel):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    told = Parser().parsestr(wheel.read(metadata).decode())
    assert told["License-Expression"] == "MIT"
    assert told["Requires-Python"] == project["requires-python"]
    assert len(project["dependencies"]) == len(
        [line for line in told.get_all("Requires-Dist") if "extra ==" not in line]
    )
    (licence,) = (name for name in wheel.namelist() if name.endswith("licenses/LICENSE"))
    assert "MIT License" in wheel.read(licence).decode()
    (scripts,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "diffcli = diffcli.__main__:main" in wheel.read(scripts).decode()


def test_the_unpacked_wheel_works_by_itself(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    wheel.extractall(site)
    elsewhere.mkdir()

    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-P", *arguments],
            cwd=elsewhere,
            env=shell_environment(PYTHONPATH=str(site)),
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout

    found = run("-c", "import diffcli.config.presets as presets; print(presets.preset_directory())")
    assert Path(found.strip()) == site / "diffcli" / "presets" != preset_directory()
    presets = run("-m", "diffcli", "train", "--list-presets")
    assert {"digits", "cifar10", "lsun_bedroom"} <= {line.partition("\t")[0] for line in presets.splitlines()}
    assert run("-m", "diffcli", "prepare", "digits").startswith("train\t")
    assert (elsewhere / "data" / "digits" / "test" / "dataset.json").is_file()
