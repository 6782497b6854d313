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
from diffcli.config.presets import list_presets, preset_directory, preset_names, presets_on
from diffcli.config.resolve import resolve

REPOSITORY = Path(__file__).parents[2]
PACKAGE = Path(diffcli.__file__).parent
IMPROVED = (
    "cifar10",
    "cifar10_vlb",
    "imagenet64",
    "imagenet64_cond",
    "imagenet64_vlb",
    "imagenet_upsample",
    "lsun_bedroom",
    "lsun_bedroom_lr2e5",
)
# sized for a processor without a graphics card
UNPUBLISHED = ("digits", "digits_classifier", "digits_upsample")
GUIDED = (
    "guided_imagenet128",
    "guided_imagenet128_classifier",
    "guided_imagenet256",
    "guided_imagenet256_classifier",
    "guided_imagenet256_uncond",
    "guided_imagenet512",
    "guided_imagenet512_classifier",
    "guided_imagenet64",
    "guided_imagenet64_classifier",
    "guided_lsun_bedroom",
    "guided_lsun_cat",
    "guided_lsun_horse",
    "guided_lsun_horse_nodropout",
    "guided_upsample_128_512",
    "guided_upsample_64_256",
)
NAMES = tuple(sorted((*UNPUBLISHED, *IMPROVED, *GUIDED)))
PUBLISHED_AT = {
    name: f"https://openaipublic.blob.core.windows.net/diffusion/{directory}/"
    for names, directory in ((IMPROVED, "march-2021"), (GUIDED, "jul-2021"))
    for name in names
}
WITHOUT_CLASSES = {
    *(name for name in NAMES if "lsun" in name or name.endswith("_uncond")),
    *("cifar10", "cifar10_vlb", "imagenet64", "imagenet64_vlb"),
}


def test_the_presets_are_these():
    assert preset_names() == NAMES
    assert preset_directory() == REPOSITORY / "presets"


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_decodes_and_keeps_all_rules(name):
    resolved = resolve(preset=name)
    assert resolved.preset == name
    assert resolved.config.data.name
    assert (resolved.config.model.classes == 0) == (name in WITHOUT_CLASSES)


def test_presets_say_what_they_are():
    presets = list_presets()
    assert tuple(preset.name for preset in presets) == NAMES
    for preset in presets:
        assert preset.title
        assert (preset.published_file == "") == (preset.name in UNPUBLISHED)
        if preset.published_file:
            assert preset.published_at == PUBLISHED_AT[preset.name]
            assert "MIT licence" in preset.licence
            assert preset.parameters > 0


def test_a_published_file_belongs_to_one_preset():
    files = [preset.published_file for preset in list_presets() if preset.published_file]
    assert len(files) == len(set(files)) == 23


def test_a_dataset_has_the_presets_that_train_on_it():
    assert presets_on("cifar10") == ("cifar10", "cifar10_vlb")
    assert presets_on("lsun_cat_256") == ("guided_lsun_cat",)
    assert presets_on("church") == ()
    assert presets_on("imagenet_64", "improved") == ("imagenet64_cond",)
    assert presets_on("imagenet_64", "guided") == ("guided_imagenet64",)
    assert presets_on("lsun_bedroom_256", "box") == presets_on("lsun_bedroom_256")


def test_the_readme_has_every_preset_as_it_is():
    rows = [line.strip("| ").split(" | ") for line in (REPOSITORY / "README.md").read_text().splitlines()]
    table = {row[0].strip("`"): row[1:] for row in rows if len(row) == 8}
    for preset in list_presets():
        config = resolve(preset=preset.name).config
        data, purpose, batch, lr, steps, parameters, file = table[preset.name]
        kind = "classifier" if config.model.kind == "classifier" else config.diffusion.objective
        assert data == config.data.name
        assert purpose == f"{kind}, {config.diffusion.schedule} {config.diffusion.steps}"
        assert batch == f"{config.training.batch_size:,}"
        assert float(lr) == config.training.lr
        assert steps == f"{config.training.steps:,}"
        assert file.strip("`") == (preset.published_file or "none")
        assert not preset.parameters or parameters == f"{preset.parameters:,}"


def test_digits_is_the_tried_demonstration():
    config = resolve(preset="digits").config
    assert (config.data.resolution, config.data.channels, config.model.classes) == (8, 1, 10)


def test_the_digits_classifier_knows_the_noise_of_the_digits_it_guides():
    digits, classifier = (resolve(preset=name).config for name in ("digits", "digits_classifier"))
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
