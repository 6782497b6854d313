"""The command that prepares a dataset, by the name that presets give it."""

from __future__ import annotations

import re
import shlex

from diffcli.config.sections import DataConfig
from diffcli.images.resize import random_crop_sides

# names that a command always gives, and what it takes
KNOWN_NAMES = {
    "digits": "diffcli prepare digits",
    "cifar10": "diffcli prepare cifar10",
    "imagenet64": "diffcli prepare imagenet64 --variant pixelrnn --train train_64x64.tar",
    "imagenet64_chrabaszcz": (
        "diffcli prepare imagenet64 --variant chrabaszcz --train DIR --val DIR (DIR: its npz files or zips)"
    ),
}
_IMAGENET = re.compile(r"imagenet_([1-9]\d*)")
_LSUN = re.compile(r"lsun_(bedroom|church_outdoor|cat|horse)_([1-9]\d*)")


def prepare_command(config: DataConfig) -> str:
    """What to type when the dataset of a configuration is not prepared."""
    if config.name in KNOWN_NAMES:
        return KNOWN_NAMES[config.name]
    recipe = f" --recipe {config.resize_recipe}" if config.resize_recipe != DataConfig.resize_recipe else ""
    if imagenet := _IMAGENET.fullmatch(config.name):
        return f"diffcli prepare imagenet --size {imagenet[1]}{recipe} --train ILSVRC2012_img_train.tar"
    if lsun := _LSUN.fullmatch(config.name):
        return f"diffcli prepare lsun --category {lsun[1]} --size {lsun[2]}"
    size = random_crop_sides(config.resolution)[-1] if config.crop == "random" else config.resolution
    return (
        f"diffcli prepare folder DIR --size {size}{recipe} --name {shlex.quote(config.name)}"
        " (DIR: its images)"
    )
