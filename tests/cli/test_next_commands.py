"""What `prepare` says to type next: a command that trains on exactly what was prepared."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffcli.cli.next_commands import after_preparing
from diffcli.records.datasets import PreparedSplit, PrepareResult


def result(name, recipe="", *, splits=("train", "val"), home="data", directory=None):
    made = [
        PreparedSplit(
            path=Path(home, directory or f"{name}/{split}"),
            split=split,
            count=1,
            height=8,
            width=8,
            channels=3,
            class_names=(),
            label_source="none",
            size_bytes=1,
            seconds=0.0,
            already_there=False,
        )
        for split in splits
    ]
    return PrepareResult(name=name, recipe=recipe, splits=tuple(made))


NEXT = {
    "the preset of the dataset": (result("cifar10"), "data", "diffcli train --preset cifar10"),
    "the preset of the recipe": (
        result("imagenet_64", "improved"),
        "data",
        "diffcli train --preset imagenet64_cond",
    ),
    "the other recipe": (
        result("imagenet_64", "guided"),
        "data",
        "diffcli train --preset guided_imagenet64",
    ),
    "a recipe that presets do not know": (
        result("lsun_cat_256", "box"),
        "data",
        "diffcli train --preset guided_lsun_cat",
    ),
    "no preset of that recipe": (
        result("imagenet_128", "improved"),
        "data",
        "diffcli train --preset PRESET --data data/imagenet_128/train",
    ),
    "another data home": (
        result("digits", home="/my data"),
        "/my data",
        "diffcli train --preset digits --data-home '/my data'",
    ),
    "a folder": (
        result("cifar10", directory="cifar_train"),
        "data",
        "diffcli train --preset cifar10 --data data/cifar_train",
    ),
    "nothing to train on": (
        result("imagenet64", splits=["val"]),
        "data",
        "diffcli prepare show data/imagenet64/val",
    ),
}


@pytest.mark.parametrize("case", NEXT)
def test_after_preparing(case):
    prepared, home, command = NEXT[case]
    assert after_preparing(prepared, Path(home)) == command
