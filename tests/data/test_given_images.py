"""Images given to `sample`: every kind of source, brought to size as training does, and the classes kept."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from diffcli.config.sections import DataConfig, ModelConfig, RunConfig
from diffcli.data.batches import network_images
from diffcli.data.cropping import centered
from diffcli.data.given_images import WantedImages, read_given_images
from diffcli.data.prepared import write_packed
from diffcli.errors import CorruptError, MissingError, UsageError
from diffcli.images.resize import area_downsampled
from diffcli.records.datasets import DATASET_SCHEMA, DatasetRecord

NAMES = ("ant", "bee", "cat")
CONFIG = RunConfig(
    data=DataConfig(resolution=8, low_resolution=4, channels=1),
    model=ModelConfig(kind="superres", classes=3),
)
SMALL = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 1, 2])


def wanted(config=CONFIG, **changes):
    plain = WantedImages(
        option="--low-res",
        count=None,
        small=True,
        with_labels=bool(config.model.classes),
        config=config,
        class_names=NAMES,
    )
    return dataclasses.replace(plain, **changes)


def of_classes(classes):
    return dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, classes=classes))


def archived(path, images=SMALL, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, arr_0=images, **arrays)
    return path


def prepared(directory, images, labels, names):
    record = DatasetRecord(
        schema=DATASET_SCHEMA,
        name="given",
        variant="",
        split="test",
        split_rule="",
        count=len(images),
        height=images.shape[1],
        width=images.shape[2],
        channels=images.shape[3],
        class_names=names,
        label_source="source" if names else "none",
        resize_recipe="",
        source_url="",
        source_bytes=0,
        source_sha256="",
        content_hash="",
        diffcli_version="0",
    )
    write_packed(directory, record, [images], labels, replace=False)
    return directory


def pictures(directory, images, names):
    directory.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(directory / name)
    return directory


# ---- where they come from ----


def test_images_of_the_size_are_taken_as_they_are_from_every_source(tmp_path):
    sources = [
        archived(tmp_path / "a.npz", arr_1=LABELS),
        prepared(tmp_path / "prepared" / "test", SMALL, LABELS, NAMES),
        pictures(tmp_path / "folder", SMALL, [f"{NAMES[c]}_{n}.png" for n, c in enumerate(LABELS)]),
    ]
    # by name within a folder: ant_1, bee_2, bee_3, cat_0, cat_4
    order = [1, 2, 3, 0, 4]
    given = [read_given_images(source, wanted()) for source in sources]
    assert [found.origin.kind for found in given] == ["archive", "prepared dataset", "folder"]
    for found, places in zip(given, [range(5), range(5), order], strict=True):
        assert found.images.dtype == np.uint8
        assert np.array_equal(found.images, SMALL[list(places)])
        assert found.labels.tolist() == LABELS[list(places)].tolist()
        assert found.labels.dtype == torch.int64
        assert found.origin.resized == 0
        assert found.remark == ""
    # the same content is the same digest, wherever it lies
    assert given[0].sha256 == given[1].sha256 != given[2].sha256
    one = read_given_images(tmp_path / "folder" / "cat_4.png", wanted())
    assert np.array_equal(one.images, SMALL[4:])
    assert one.labels.tolist() == [2]


def test_an_archives_directory_is_its_archive_and_never_its_pictures(tmp_path):
    directory = tmp_path / "samples" / "mine"
    archive = archived(directory / "samples_5x4x4x1.npz", arr_1=LABELS)
    pictures(directory, SMALL[:1], ["grid.png"])
    (directory / "sample.json").write_text(json.dumps({"fingerprint": "f00d"}))
    by_directory, by_file = (read_given_images(path, wanted()) for path in (directory, archive))
    assert np.array_equal(by_directory.images, SMALL)
    assert by_directory.sha256 == by_file.sha256
    assert by_directory.origin == by_file.origin
    assert by_file.origin.fingerprint == "f00d"
    assert by_file.origin.path == str(archive)


def test_a_number_takes_the_first_ones_and_the_digest_is_of_them(tmp_path):
    archive = archived(tmp_path / "a.npz", arr_1=LABELS)
    few = read_given_images(archive, wanted(count=2))
    assert np.array_equal(few.images, SMALL[:2])
    assert few.labels.tolist() == [2, 0]
    alone = archived(tmp_path / "b.npz", SMALL[:2], arr_1=LABELS[:2])
    assert read_given_images(alone, wanted()).sha256 == few.sha256
    relabelled = archived(tmp_path / "c.npz", SMALL[:2], arr_1=LABELS[:2][::-1])
    assert read_given_images(relabelled, wanted()).sha256 != few.sha256


# ---- sizes ----


def images_of(height, width, channels=1):
    return np.random.default_rng(1).integers(0, 256, (3, height, width, channels), dtype=np.uint8)


def as_training_makes_them(images, config):
    """Through the functions that a training step goes through, as levels of 0..255."""
    squares = torch.from_numpy(np.ascontiguousarray(centered(images, config.data)))
    planes = network_images(squares, torch.zeros(len(images), dtype=torch.bool))
    low_res = area_downsampled(planes, config.data.low_resolution)
    return ((low_res + 1) * 127.5).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("recipe", ["guided", "improved"])
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (40, 17)])
def test_larger_images_become_the_small_ones_of_training(size, recipe, tmp_path):
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, resize_recipe=recipe))
    images = images_of(*size)
    given = [
        read_given_images(archived(tmp_path / "a.npz", images), wanted(config)),
        read_given_images(prepared(tmp_path / "p" / "test", images, None, ()), wanted(config)),
        read_given_images(pictures(tmp_path / "f", images, ["0.png", "1.png", "2.png"]), wanted(config)),
    ]
    for found in given:
        assert np.abs(found.images - as_training_makes_them(images, config)).max() <= 0.501
        assert found.origin.resized == 3
        assert found.remark == "all 3 images were larger, and brought to 4x4"


def test_an_image_between_the_two_sizes_is_cut_and_averaged(tmp_path):
    image = np.zeros((5, 7, 1), dtype=np.uint8)
    # the middle square, and bright margins that must not show
    image[:, 1:6] = 100
    image[:, 0] = image[:, 6] = 255
    pictures(tmp_path, [image, SMALL[0]], ["a.png", "b.png"])
    given = read_given_images(tmp_path, wanted())
    assert (given.images[0] == 100).all()
    assert np.array_equal(given.images[1], SMALL[0])
    assert given.remark == "1 of 2 images were larger, and brought to 4x4"


def test_images_for_the_network_itself_go_through_the_recipe(tmp_path):
    images = images_of(20, 31)
    given = read_given_images(archived(tmp_path / "a.npz", images), wanted(small=False))
    assert np.array_equal(given.images, centered(images, CONFIG.data))
    exact = images_of(8, 8)
    assert np.array_equal(
        read_given_images(archived(tmp_path / "b.npz", exact), wanted(small=False)).images, exact
    )


def test_a_picture_has_as_many_channels_as_the_network_takes(tmp_path):
    pictures(tmp_path, [np.full((4, 4, 3), (255, 0, 0), dtype=np.uint8)], ["red.png"])
    # the luma of red, ITU-R 601
    assert (read_given_images(tmp_path, wanted()).images == 76).all()


# ---- classes ----


def labels_of(source, **changes):
    labels = read_given_images(source, wanted(**changes)).labels
    return None if labels is None else labels.tolist()


def test_classes_of_other_numbers_are_known_by_their_names(tmp_path):
    source = prepared(tmp_path / "test", SMALL, LABELS, ("cat", "ant", "bee"))
    assert labels_of(source) == [1, 2, 0, 0, 1]


def test_file_names_that_are_no_classes_tell_none(tmp_path):
    folder = pictures(tmp_path, SMALL[:2], ["IMG_0001.png", "IMG_0002.png"])
    assert labels_of(folder) is None
    assert labels_of(folder, config=of_classes(0), class_names=()) is None
    assert labels_of(folder / "IMG_0001.png") is None


def test_the_topmost_directory_is_the_class_where_training_took_it(tmp_path):
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, labels="directories"))
    pictures(tmp_path / "bee", SMALL[:1], ["x.png"])
    pictures(tmp_path / "ant" / "deep", SMALL[1:2], ["y.png"])
    assert labels_of(tmp_path, config=config) == [0, 1]
    assert labels_of(tmp_path / "bee", config=config) is None


def test_a_network_without_classes_keeps_the_labels_it_is_given(tmp_path):
    high = archived(tmp_path / "a.npz", arr_1=LABELS + 7)
    assert labels_of(high, config=of_classes(0)) == (LABELS + 7).tolist()
    unknown = prepared(tmp_path / "test", SMALL, LABELS, ("x", "y", "z"))
    assert labels_of(unknown, config=of_classes(0), class_names=()) == LABELS.tolist()
    # numbers of other classes would mean something else
    assert labels_of(unknown, config=of_classes(0)) is None


def test_labels_do_not_matter_where_classes_are_asked_for(tmp_path):
    assert labels_of(archived(tmp_path / "a.npz", arr_1=LABELS + 7), with_labels=False) is None


# ---- what cannot be meant ----


def write_nothing(_path):
    pass


def write_text(path):
    path.write_text("no archive")


REFUSALS = [
    ("nowhere.npz", write_nothing, MissingError, "there is no .*nowhere.npz"),
    ("text.npz", write_text, CorruptError, "not a sample archive"),
    ("text.png", write_text, CorruptError, "not a jpeg, png, gif or webp"),
    ("empty", lambda path: path.mkdir(), MissingError, "holds no images"),
    ("no.npz", lambda path: np.savez(path, labels=LABELS), CorruptError, "not a sample archive"),
    ("float.npz", lambda path: archived(path, SMALL / 255), UsageError, r"float64 \[5, 4, 4, 1\]"),
    ("flat.npz", lambda path: archived(path, SMALL[0]), UsageError, r"uint8 \[4, 4, 1\]"),
    ("none.npz", lambda path: archived(path, SMALL[:0]), UsageError, r"\[0, 4, 4, 1\]"),
    ("tiny.npz", lambda path: archived(path, SMALL[:, 1:]), UsageError, "image 0: 4x3 is too small"),
    ("rgb.npz", lambda path: archived(path, images_of(4, 4, 3)), UsageError, "3 channels, .* takes 1"),
    ("few.npz", lambda path: archived(path, arr_1=LABELS[:2]), UsageError, r"labels arr_1 of int64 \[2\]"),
    ("half.npz", lambda path: archived(path, arr_1=LABELS / 2), UsageError, "float64"),
    ("high.npz", lambda path: archived(path, arr_1=LABELS + 1), UsageError, "labels from 1 to 3"),
    ("low.npz", lambda path: archived(path, arr_1=LABELS - 1), UsageError, "labels from -1 to 1"),
    (
        "partly",
        lambda path: pictures(path, SMALL[:2], ["cat_1.png", "cta_2.png"]),
        UsageError,
        r"does not know: cta(.|\n)*did you mean cat\?(.|\n)*--class",
    ),
    (
        "other/test",
        lambda path: prepared(path, SMALL, LABELS, ("x", "y", "z")),
        UsageError,
        "does not know: x, y, z",
    ),
    ("splits", lambda path: prepared(path / "val", SMALL, LABELS, NAMES), UsageError, "--low-res .*/val"),
]


@pytest.mark.parametrize(
    ("name", "write", "kind", "words"), REFUSALS, ids=[refusal[0] for refusal in REFUSALS]
)
def test_what_cannot_be_taken_is_refused_with_the_option_that_gave_it(name, write, kind, words, tmp_path):
    write(tmp_path / name)
    with pytest.raises(kind, match=words) as refused:
        read_given_images(tmp_path / name, wanted())
    assert "--low-res" in str(refused.value) or kind is MissingError


def test_more_than_there_are_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds 5 images, and --num is 6"):
        read_given_images(archived(tmp_path / "a.npz"), wanted(count=6))


def test_all_bad_images_are_listed_by_name(tmp_path):
    pictures(tmp_path, [*SMALL, *[SMALL[0][:2]] * 6], [f"{n:02}.png" for n in range(11)])
    with pytest.raises(UsageError) as refused:
        read_given_images(tmp_path, wanted())
    assert refused.value.what == f"6 of 11 images in {tmp_path} cannot be used"
    shown = refused.value.where.splitlines()
    assert shown[1:] == [*(f"{n:02}.png: 4x2 is too small" for n in range(5, 9)), "and 2 more"]
    (tmp_path / "03.png").write_bytes(b"")
    # a file that is no image at all weighs more than a small one
    with pytest.raises(CorruptError, match=r"7 of 11(.|\n)*03\.png: an empty file"):
        read_given_images(tmp_path, wanted())
