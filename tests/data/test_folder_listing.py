"""A folder's listing order and classes, against the golden tree and in odd cases."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from diffcli.config.sections import DataConfig
from diffcli.data.folder_dataset import FolderDataset
from diffcli.data.sources.folder import classes_by_directory, classes_by_file_name, read_folder
from diffcli.data.sources.named_files import open_files
from diffcli.errors import CorruptError, MissingError, StorageError, UsageError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "images" / "labels.json").read_text())


def plant(root, tree):
    for name in tree:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def without_webp(tree):
    return [name for name in tree if not name.endswith(".webp")]


def test_golden_listing_and_classes(tmp_path):
    folder = read_folder(plant(tmp_path, without_webp(GOLDEN["tree"])), "filename")
    assert [file.path for file in folder.files] == GOLDEN["listing_order"]
    assert folder.classes.labels.tolist() == GOLDEN["class_ids_in_listing_order"]
    assert list(folder.classes.names) == GOLDEN["class_names"]
    assert folder.label_source == "filename"
    assert f"torch.{folder.classes.labels.dtype}" == GOLDEN["y_dtype"]
    assert folder.classes.labels[:4].tolist() == GOLDEN["first_deterministic_batch_of_4_y"]
    assert set(GOLDEN) == {
        "tree",
        "listing_order",
        "class_ids_in_listing_order",
        "class_names",
        "shards",
        "first_deterministic_batch_of_4_y",
        "y_dtype",
    }


@pytest.mark.parametrize("shard", GOLDEN["shards"])
def test_golden_shards_are_every_kth_of_the_listing(tmp_path, shard):
    rank, ranks = map(int, shard.split("_of_"))
    folder = read_folder(plant(tmp_path, without_webp(GOLDEN["tree"])), "filename")
    assert folder.files.paths[rank::ranks] == GOLDEN["shards"][shard]["files"]
    assert folder.classes.labels[rank::ranks].tolist() == GOLDEN["shards"][shard]["classes"]


def test_webp_files_are_images_here(tmp_path):
    folder = read_folder(plant(tmp_path, GOLDEN["tree"]), "filename")
    paths = [file.path for file in folder.files]
    assert paths == sorted([*GOLDEN["listing_order"], "skip.webp"])
    assert "skip.webp" in folder.classes.names


def test_classes_by_directory_take_the_topmost_one():
    classes = classes_by_directory(["b/1.png", "a/deep/2.png", "a/3.png", "10/4.png"])
    assert classes.names == ("10", "a", "b")
    assert classes.labels.tolist() == [2, 1, 1, 0]


def test_classes_by_directory_need_directories(tmp_path):
    with pytest.raises(UsageError, match="1 of 2 images lie in no directory") as caught:
        read_folder(plant(tmp_path, ["a/1.png", "loose_2.png"]), "directories")
    assert "loose_2.png" in caught.value.where


def test_names_without_any_underscore_are_no_classes(tmp_path):
    folder = read_folder(plant(tmp_path, ["00000/img1.png", "00000/img2.png"]), "filename")
    assert (folder.classes, folder.label_source) == (None, "none")


def test_odd_names(tmp_path):
    odd = os.fsdecode(b"caf\xe9_1.png")
    names = ["two words_1.png", "new\nline_1.PNG", "ß_1.jpg", ".png", odd, "x.png.txt", "png"]
    folder = read_folder(plant(tmp_path, names), "filename")
    assert [file.path for file in folder.files] == sorted(set(names) - {"x.png.txt", "png"})
    assert set(folder.classes.names) == {".png", "two words", "new\\nline", "ß", "caf\\udce9"}
    assert len(FolderDataset(tmp_path, DataConfig()).content_hash) == 64


def test_a_directory_named_like_an_image_is_visited(tmp_path):
    folder = read_folder(plant(tmp_path, ["a.png/b_1.png"]), "filename")
    assert [file.path for file in folder.files] == ["a.png/b_1.png"]


def test_linked_directories_are_followed_but_not_in_circles(tmp_path):
    plant(tmp_path, ["real/a_1.png", "top/x_1.png"])
    (tmp_path / "top" / "linked").symlink_to(tmp_path / "real")
    folder = read_folder(tmp_path / "top", "filename")
    assert [file.path for file in folder.files] == ["linked/a_1.png", "x_1.png"]
    (tmp_path / "real" / "round").symlink_to(tmp_path / "top")
    with pytest.raises(CorruptError, match="links back"):
        read_folder(tmp_path / "top", "filename")


def test_a_link_to_itself_is_passed_over_unless_it_is_named_like_an_image(tmp_path):
    plant(tmp_path, ["a_1.png"])
    (tmp_path / "me").symlink_to("me")
    folder = read_folder(tmp_path, "filename")
    assert [file.path for file in folder.files] == ["a_1.png"]
    (tmp_path / "b_1.png").symlink_to("b_1.png")
    folder = read_folder(tmp_path, "filename")
    assert [(file.path, file.size_bytes) for file in folder.files] == [("a_1.png", 0), ("b_1.png", 0)]
    with pytest.raises(StorageError, match="symbolic links"):
        folder.tree.image("b_1.png")


def test_directories_too_deep_are_refused(tmp_path):
    plant(tmp_path, ["d/" * 150 + "a_1.png"])
    assert len(read_folder(tmp_path, "filename").files) == 1
    plant(tmp_path, ["d/" * 250 + "a_1.png"])
    with pytest.raises(CorruptError, match="more than 200 directories deep"):
        read_folder(tmp_path, "filename")
    with pytest.raises(CorruptError, match="more than 200 deep"), open_files(tmp_path, scratch=tmp_path):
        pytest.fail("listed")


def test_notes_of_macos_are_no_images(tmp_path):
    plant(tmp_path, ["a_1.png", "._a_1.png", "b/._c_2.jpg", "__MACOSX/b/c_2.png", "b/a_3.png", "._DS_Store"])
    folder = read_folder(tmp_path, "filename")
    assert [file.path for file in folder.files] == ["a_1.png", "b/a_3.png"]
    assert folder.classes.names == ("a",)
    assert folder.tree.passed_over == 3


def test_missing_empty_and_wrong_folders(tmp_path):
    plant(tmp_path, ["empty/readme.txt"])
    for path, message in [("gone", "there is no"), ("empty", "no images"), ("empty/readme.txt", "not a dir")]:
        with pytest.raises(MissingError, match=message):
            read_folder(tmp_path / path, "filename")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_directory_that_may_not_be_listed(tmp_path):
    plant(tmp_path, ["locked/a_1.png"])
    (tmp_path / "locked").chmod(0)
    try:
        with pytest.raises(StorageError, match="locked"):
            read_folder(tmp_path, "filename")
    finally:
        (tmp_path / "locked").chmod(0o755)


def test_class_of_a_file_name_ignores_its_directory():
    classes = classes_by_file_name(["cat/dog_1.png", "dog/cat_2.png", "cat_dog_3.png"])
    assert classes.names == ("cat", "dog")
    assert classes.labels.tolist() == [1, 0, 0]
