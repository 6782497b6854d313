"""Every preset decodes, and presets/ is found wherever diffcli is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

import diffcli
from diffcli.config.presets import list_presets, preset_directory, preset_names
from diffcli.config.resolve import resolve

REPOSITORY = Path(__file__).parents[2]
PACKAGE = Path(diffcli.__file__).parent
NAMES = (
    "cifar10",
    "cifar10_vlb",
    "digits",
    "digits_classifier",
    "imagenet64",
    "imagenet64_cond",
    "imagenet64_vlb",
    "imagenet_upsample",
    "lsun_bedroom",
    "lsun_bedroom_lr2e5",
)
# sized for a processor without a graphics card
UNPUBLISHED = ("digits", "digits_classifier")


def test_the_presets_are_these():
    assert preset_names() == NAMES
    assert preset_directory() == REPOSITORY / "presets"


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_decodes_and_keeps_all_rules(name):
    resolved = resolve(preset=name)
    assert resolved.preset == name
    assert resolved.config.data.name
    with_classes = (*UNPUBLISHED, "imagenet64_cond", "imagenet_upsample")
    assert (resolved.config.model.classes > 0) == (name in with_classes)


def test_presets_say_what_they_are():
    presets = list_presets()
    assert tuple(preset.name for preset in presets) == NAMES
    for preset in presets:
        assert preset.title
        assert (preset.published_file == "") == (preset.name in UNPUBLISHED)
        if preset.published_file:
            assert preset.published_at == "https://openaipublic.blob.core.windows.net/diffusion/march-2021/"
            assert preset.licence
            assert preset.parameters > 0


def test_digits_is_the_tried_demonstration():
    config = resolve(preset="digits").config
    assert (config.data.resolution, config.data.channels, config.model.classes) == (8, 1, 10)


def test_the_digits_classifier_knows_the_noise_of_the_digits_it_guides():
    digits, classifier = (resolve(preset=name).config for name in UNPUBLISHED)
    for name in ("steps", "schedule", "rescale_timesteps"):
        assert getattr(classifier.diffusion, name) == getattr(digits.diffusion, name)
    for name in ("name", "resolution", "channels", "flip"):
        assert getattr(classifier.data, name) == getattr(digits.data, name)
    assert (digits.data.flip, classifier.training.noisy) == (False, True)
    assert classifier.model.classes == digits.model.classes


def found_by(root, working_directory):
    program = (
        "import json; from diffcli.config.presets import list_presets, preset_directory;"
        "print(json.dumps([str(preset_directory()), [preset.name for preset in list_presets()]]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=working_directory,
        env={"PYTHONPATH": str(root)},
        check=False,
    )
    return json.loads(result.stdout) if result.returncode == 0 else result.stderr


def copy_package(target):
    target.mkdir(parents=True)
    for name in ("__init__.py", "errors.py"):
        shutil.copy(PACKAGE / name, target)
    shutil.copytree(PACKAGE / "config", target / "config", ignore=shutil.ignore_patterns("__pycache__"))


def test_presets_are_found_in_a_wheel(tmp_path):
    site = tmp_path / "site-packages"
    copy_package(site / "diffcli")
    wheel = tomli.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    for source, target in wheel["force-include"].items():
        shutil.copytree(REPOSITORY / source, site / target)
    assert found_by(site, tmp_path) == [str(site / "diffcli" / "presets"), list(NAMES)]


def test_presets_are_found_in_a_source_tree(tmp_path):
    tree = tmp_path / "tree"
    copy_package(tree / "src" / "diffcli")
    shutil.copytree(REPOSITORY / "presets", tree / "presets")
    shutil.copy(REPOSITORY / "pyproject.toml", tree)
    assert found_by(tree / "src", tmp_path) == [str(tree / "presets"), list(NAMES)]


def test_a_foreign_directory_called_presets_is_not_ours(tmp_path):
    copy_package(tmp_path / "lib" / "site-packages" / "diffcli")
    (tmp_path / "lib" / "presets").mkdir()
    message = found_by(tmp_path / "lib" / "site-packages", tmp_path)
    assert "MissingError" in message
    assert "install diffcli again" in message
