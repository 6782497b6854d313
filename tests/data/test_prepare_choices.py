"""What a request alone can tell: where it goes, whether its choices go together, and what is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from diffcli.commands import preparation
from diffcli.commands.output_form import OutputChoices, OutputForm, check_form, facts_of
from diffcli.commands.prepare import FolderRequest, prepare_folder
from diffcli.commands.prepare_imagenet import ImageNetRequest, prepare_imagenet
from diffcli.commands.prepare_imagenet64 import ImageNet64Request, prepare_imagenet64
from diffcli.data.prepared import prepared_names, prepared_splits
from diffcli.data.sources.published import AnnouncedSplit
from diffcli.data.sources.source import SourceFacts
from diffcli.errors import CorruptError, MissingError, StorageError, UsageError
from published_layouts import imagenet_val, pixelrnn_members, write_tar, write_tree


def form(home: Path, size: int = 64, **choices: object) -> OutputForm:
    return OutputForm(
        choices=OutputChoices(home=home, **choices), name="mine", size=size, channels=3, recipe="guided"
    )


# ---- where it goes ----


def photos(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "photos", pixelrnn_members("a", 3))


def test_a_folder_and_a_dataset_of_one_name_are_in_nobodys_way(tmp_path):
    request = {"home": tmp_path / "data", "source": photos(tmp_path), "size": 8, "name": "mine"}
    dataset = prepare_folder(FolderRequest(**request)).splits[0].path
    folder = prepare_folder(FolderRequest(**request, layout="folder")).splits[0].path
    assert (dataset, folder) == (tmp_path / "data/mine/train", tmp_path / "data/mine_train")


@pytest.mark.parametrize("layout", ["dataset", "folder"])
def test_what_is_in_the_way_is_seen_before_the_source(layout, tmp_path):
    source = photos(tmp_path)
    request = FolderRequest(home=tmp_path / "data", source=source, size=8, name="mine", layout=layout)
    prepare_folder(request)
    shutil.rmtree(source)
    with pytest.raises(UsageError, match="already there"):
        prepare_folder(request)


def test_another_recipe_than_that_of_what_is_there_is_seen_before_the_listing(tmp_path):
    train = write_tree(tmp_path / "train", {"n01440764/n01440764_1.JPEG": imagenet_val(1).popitem()[1]})
    request = {"home": tmp_path / "data", "size": 8, "train": train, "allow_partial": True}
    prepare_imagenet(ImageNetRequest(**request))
    (train / "n01440764" / "n01440764_2.JPEG").mkdir()
    with pytest.raises(UsageError, match="holds other images") as caught:
        prepare_imagenet(ImageNetRequest(**request, recipe="improved", encoding="png", format="shards"))
    different = "encoding, format, images_per_shard, resize_recipe"
    assert caught.value.where == f"different in its dataset.json: {different}"


def test_a_moved_tree_is_known_by_its_files(tmp_path):
    members = pixelrnn_members("valid_64x64", 3)
    tree = write_tree(tmp_path / "tree", members) / "valid_64x64"
    request = {"home": tmp_path / "data", "variant": "pixelrnn", "allow_partial": True}
    prepare_imagenet64(ImageNet64Request(**request, val=[tree]))
    (tree / "notes.txt").write_text("no image\n")
    moved = tree.rename(tmp_path / "moved")
    (kept,) = prepare_imagenet64(ImageNet64Request(**request, val=[moved])).splits
    assert kept.already_there
    # as many bytes in all, in other files
    first, second = (moved / f"000000{number}.png" for number in (1, 2))
    first.write_bytes(first.read_bytes() + b"\0")
    second.write_bytes(second.read_bytes()[:-1])
    with pytest.raises(UsageError, match="from other files, or from another place"):
        prepare_imagenet64(ImageNet64Request(**request, val=[moved]))


# ---- whether the choices go together ----


USELESS = {
    "an encoding of plain pixels": (
        {"encoding": "png"},
        "--encoding png does not go with the packed format",
        "add --format shards",
    ),
    "a quality of plain pixels": (
        {"quality": 80, "size": 256, "format": "packed"},
        "--quality 80 does not go with the packed format, which is that of 256x256",
        "add --format shards",
    ),
    "an encoding of a folder": (
        {"encoding": "webp", "quality": 80, "layout": "folder", "size": 256},
        "--encoding webp and --quality 80 do not go with --layout folder",
        "PNG files",
    ),
    "a format of a folder": (
        {"format": "shards", "layout": "folder"},
        "--format shards does not go with --layout folder",
        "PNG files",
    ),
    "a quality of what loses nothing": (
        {"encoding": "png", "quality": 80, "size": 256},
        "--quality 80 does not go with --encoding png",
        "only JPEG",
    ),
}


@pytest.mark.parametrize("useless", USELESS)
def test_a_choice_that_nothing_is_stored_by_is_refused(useless, tmp_path):
    choices, words, remedy = USELESS[useless]
    with pytest.raises(UsageError, match=words) as caught:
        check_form(form(tmp_path, **choices))
    assert remedy in caught.value.remedy


def test_choices_that_go_together(tmp_path):
    check_form(form(tmp_path, encoding="png", format="shards"))
    check_form(form(tmp_path, quality=80, encoding="jpeg", size=256))
    check_form(form(tmp_path, layout="folder"))
    assert form(tmp_path, size=256).encoding.quality == 95


def test_the_space_of_a_folder_is_that_of_its_png_files(tmp_path):
    """More than that of the shards which the same size would have."""
    pixel_bytes = 256 * 256 * 3
    # in shards of JPEG it would take two thirds of what is free, as PNG half as much again
    count = int(shutil.disk_usage(tmp_path).free / pixel_bytes * 2.5)
    facts = SourceFacts(split="train", split_rule="", label_source="none")
    many = AnnouncedSplit(facts=facts, count=count, read_origin=lambda _told: pytest.fail("read"))
    shards, folder = form(tmp_path, size=256), form(tmp_path, size=256, layout="folder")
    preparation._check_space(shards, facts_of(many, shards), 0)
    with pytest.raises(StorageError, match="the dataset needs about"):
        preparation._check_space(folder, facts_of(many, folder), 0)


# ---- what is missing ----


def test_a_missing_file_is_named_with_its_own_remedy(tmp_path):
    chrabaszcz = {"home": tmp_path / "data", "variant": "chrabaszcz"}
    with pytest.raises(MissingError, match=r"no .*part1\.zip") as caught:
        prepare_imagenet64(ImageNet64Request(**chrabaszcz, train=[tmp_path / "part1.zip"]))
    assert "Imagenet64_" in caught.value.remedy
    (tmp_path / "part1.zip").touch()
    with pytest.raises(MissingError, match=r"no .*map\.txt") as caught:
        prepare_imagenet64(
            ImageNet64Request(**chrabaszcz, train=[tmp_path / "part1.zip"], class_map=tmp_path / "map.txt")
        )
    assert "--class-map" in caught.value.remedy

    val = write_tar(tmp_path / "val.tar", imagenet_val(2))
    imagenet = {"home": tmp_path / "data", "size": 8}
    with pytest.raises(MissingError, match=r"no .*solution\.csv") as caught:
        prepare_imagenet(ImageNetRequest(**imagenet, val=val, val_labels=tmp_path / "solution.csv"))
    assert "--val-labels" in caught.value.remedy
    with pytest.raises(MissingError, match=r"no .*train\.tar") as caught:
        prepare_imagenet(ImageNetRequest(**imagenet, train=tmp_path / "train.tar"))
    assert "ILSVRC2012_img_train.tar" in caught.value.remedy

    folder = {"home": tmp_path / "data", "size": 8, "source": photos(tmp_path)}
    with pytest.raises(MissingError, match=r"no .*classes\.csv") as caught:
        prepare_folder(FolderRequest(**folder, labels_file=tmp_path / "classes.csv"))
    assert "--labels-from" in caught.value.remedy
    assert not (tmp_path / "data").exists()


def test_a_folder_of_edm_in_the_data_home_is_no_dataset(tmp_path):
    labels = b'{"labels": [["img00000000.png", 3]]}'
    write_tree(tmp_path, {"edm/00000/dataset.json": labels, "mine/train/dataset.json": b"{"})
    assert prepared_names(tmp_path) == ("mine",)
    assert (prepared_splits(tmp_path, "edm"), prepared_splits(tmp_path, "mine")) == ((), ("train",))


def test_a_damaged_split_is_told_before_the_other_is_opened(tmp_path):
    source = write_tar(tmp_path / "x.tar", pixelrnn_members("t", 3))
    request = {"home": tmp_path / "data", "variant": "pixelrnn", "allow_partial": True}
    (train,) = prepare_imagenet64(ImageNet64Request(**request, train=[source])).splits
    (train.path / "images.npy").write_bytes(b"")
    (tmp_path / "no.tar").write_bytes(b"no tar")
    with pytest.raises(CorruptError, match="imagenet64/train") as caught:
        prepare_imagenet64(ImageNet64Request(**request, train=[source], val=[tmp_path / "no.tar"]))
    assert "--force" in caught.value.remedy
