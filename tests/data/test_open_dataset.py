"""How a configuration finds its dataset, and what it says when it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from diffcli.commands.prepare import DigitsRequest, prepare_digits
from diffcli.config.presets import list_presets
from diffcli.config.resolve import resolve
from diffcli.config.sections import DataConfig, ModelConfig
from diffcli.data.advice import prepare_command
from diffcli.data.dataset import check_classes, open_dataset
from diffcli.data.folder_dataset import FolderDataset
from diffcli.data.prepared import PreparedDataset
from diffcli.data.squares import SquareFormat
from diffcli.errors import CorruptError, MissingError, UsageError

DIGITS = DataConfig(name="digits", resolution=8, channels=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("data")
    prepare_digits(DigitsRequest(home=home))
    return home


@pytest.fixture
def photos(tmp_path):
    for number in range(7):
        shade = Image.new("RGB", (30 + number, 20), (number * 30, 0, 0))
        shade.save(tmp_path / f"{'ab'[number % 2]}_{number}.png")
    return tmp_path


def test_by_name_and_by_directory(home):
    by_name = open_dataset(DIGITS, home=home, directory=None)
    assert isinstance(by_name, PreparedDataset)
    assert (by_name.count, by_name.weak_hash) == (1500, False)
    test_split = replace(DIGITS, split="test")
    assert open_dataset(test_split, home=home, directory=None).count == 297
    unnamed = replace(DIGITS, name="")
    for directory in (home / "digits", home / "digits" / "train"):
        found = open_dataset(unnamed, home=home / "elsewhere", directory=directory)
        assert found.content_hash == by_name.content_hash


def test_missing_datasets_are_told_with_the_command_to_type(home, tmp_path):
    with pytest.raises(MissingError, match="'digits' is not prepared") as caught:
        open_dataset(DIGITS, home=tmp_path, directory=None)
    assert caught.value.remedy == "diffcli prepare digits"
    with pytest.raises(MissingError) as caught:
        open_dataset(replace(DIGITS, name="digit"), home=home, directory=None)
    assert "did you mean digits?" in caught.value.remedy
    assert "prepared there: digits" in caught.value.where
    rooms = DataConfig(name="lsun_bedroom_256", resolution=256, resize_recipe="improved")
    with pytest.raises(MissingError) as caught:
        open_dataset(rooms, home=home, directory=None)
    command = "diffcli prepare lsun --category bedroom --size 256"
    assert command in caught.value.remedy
    with pytest.raises(MissingError) as caught:
        open_dataset(DataConfig(name="imagenet_80", resolution=64, crop="random"), home=home, directory=None)
    assert "diffcli prepare imagenet --size 80" in caught.value.remedy
    # random crops take images that are larger
    with pytest.raises(MissingError) as caught:
        open_dataset(DataConfig(name="own", resolution=64, crop="random"), home=home, directory=None)
    assert "diffcli prepare folder DIR --size 80 --name own" in caught.value.remedy
    with pytest.raises(MissingError, match="no split 'tset'") as caught:
        open_dataset(replace(DIGITS, split="tset"), home=home, directory=None)
    assert caught.value.remedy == "--set data.split=test (prepared: test, train)"
    with pytest.raises(MissingError, match="no split 'val'"):
        open_dataset(replace(DIGITS, split="val"), home=home, directory=home / "digits")
    with pytest.raises(UsageError, match="no dataset is named"):
        open_dataset(DataConfig(), home=home, directory=None)


def test_wrong_directories(home, tmp_path):
    with pytest.raises(MissingError, match="gone"):
        open_dataset(DIGITS, home=home, directory=tmp_path / "gone")
    with pytest.raises(UsageError, match="is a file"):
        open_dataset(DIGITS, home=home, directory=home / "digits" / "train" / "images.npy")
    with pytest.raises(MissingError, match="holds no images"):
        open_dataset(DIGITS, home=home, directory=tmp_path)


def test_a_plain_folder_is_a_dataset(photos, home):
    dataset = open_dataset(DataConfig(resolution=16), home=home, directory=photos)
    assert isinstance(dataset, FolderDataset)
    assert (dataset.count, dataset.height, dataset.width, dataset.channels) == (7, 16, 16, 3)
    assert dataset.class_names == ("a", "b")
    assert dataset.weak_hash
    chosen = np.array([3, 6, 0, 3])
    images = dataset.read(chosen)
    assert images.shape == (4, 16, 16, 3)
    # listed by name: a_0 a_2 a_4 a_6 b_1 b_3 b_5
    assert images[:, 8, 8, 0].tolist() == [180, 150, 0, 180]
    assert dataset.labels(chosen).tolist() == [0, 1, 0, 0]
    gray = open_dataset(DataConfig(resolution=16, channels=1), home=home, directory=photos)
    assert gray.read(chosen).shape == (4, 16, 16, 1)


def test_the_weak_hash_sees_names_and_sizes(photos):
    config = DataConfig(resolution=16)
    seen = {FolderDataset(photos, config).content_hash}
    assert FolderDataset(photos, config).content_hash in seen
    (photos / "a_0.png").rename(photos / "c_0.png")
    seen.add(FolderDataset(photos, config).content_hash)
    with (photos / "c_0.png").open("ab") as file:
        file.write(b"more")
    seen.add(FolderDataset(photos, config).content_hash)
    (photos / "c_0.png").unlink()
    seen.add(FolderDataset(photos, config).content_hash)
    assert len(seen) == 4


def test_images_that_go_bad_while_training_are_named(photos):
    dataset = FolderDataset(photos, DataConfig(resolution=16))
    (photos / "a_2.png").write_bytes(b"")
    (photos / "b_1.png").unlink()
    with pytest.raises(CorruptError, match="2 of 7") as caught:
        dataset.read(np.arange(7))
    assert caught.value.where.splitlines() == ["a_2.png: an empty file", "b_1.png: no longer there"]


def test_classes_of_model_and_dataset(home, photos):
    digits = open_dataset(DIGITS, home=home, directory=None)
    check_classes(digits, ModelConfig(classes=0))
    check_classes(digits, ModelConfig(classes=10))
    with pytest.raises(UsageError, match=r"model\.classes is 11, but the dataset has 10") as caught:
        check_classes(digits, ModelConfig(classes=11))
    assert caught.value.remedy == "--set model.classes=10"
    for path in photos.iterdir():
        path.rename(photos / path.name.replace("_", ""))
    unlabelled = open_dataset(DataConfig(resolution=16), home=home, directory=photos)
    check_classes(unlabelled, ModelConfig(classes=0))
    with pytest.raises(UsageError, match="no labels") as caught:
        check_classes(unlabelled, ModelConfig(classes=2))
    assert "--set model.classes=0, or name the files" in caught.value.remedy
    # a classifier cannot do without
    with pytest.raises(UsageError, match="no labels") as caught:
        check_classes(unlabelled, ModelConfig(kind="classifier", classes=2))
    assert caught.value.remedy.startswith("name the files")


def test_a_square_format_is_what_read_gives(photos):
    dataset = FolderDataset(photos, DataConfig(resolution=5))
    square = SquareFormat(resolution=5, recipe="guided", channels=3)
    assert dataset.read(np.array([0])).shape[1:] == (square.resolution, square.resolution, square.channels)


ADVICE = {
    "cifar10": "diffcli prepare cifar10",
    "imagenet64": "diffcli prepare imagenet64 --variant pixelrnn",
    "imagenet_128": "diffcli prepare imagenet --size 128 --recipe improved --train ILSVRC2012_img_train.tar",
    "lsun_church_outdoor_256": "diffcli prepare lsun --category church_outdoor --size 256",
    "lsun_dog_256": "diffcli prepare folder DIR --size 64 --recipe improved --name lsun_dog_256",
}


@pytest.mark.parametrize("name", ADVICE)
def test_a_missing_dataset_comes_with_the_command_that_prepares_it(name, tmp_path):
    config = DataConfig(name=name, resize_recipe="improved")
    with pytest.raises(MissingError) as caught:
        open_dataset(config, home=tmp_path, directory=None)
    assert ADVICE[name] in caught.value.remedy


def test_the_data_of_every_preset_has_a_command_of_its_own(tmp_path):
    for preset in list_presets():
        config = resolve(preset=preset.name).config.data
        assert " folder " not in prepare_command(config), preset.name
