"""`prepare imagenet` on archives and trees of the published layout."""

from __future__ import annotations

import os
import sys
import tarfile

import numpy as np
import pytest

from diffcli.commands.prepare_imagenet import ImageNetRequest, prepare_imagenet
from diffcli.data.prepared import PreparedDataset
from diffcli.data.sources import imagenet
from diffcli.errors import CorruptError, DiffcliError, MissingError, UsageError
from published_layouts import (
    WORDNET_IDS,
    devkit_members,
    imagenet_train,
    imagenet_train_tar,
    imagenet_val,
    photo,
    solution_csv,
    write_tar,
    write_tree,
    write_zip,
)

FLAT = {name: content for files in imagenet_train().values() for name, content in files.items()}
TREE = {f"{c}/{name}": content for c, files in imagenet_train().items() for name, content in files.items()}
TRAIN = {
    "tar of tars": lambda place: imagenet_train_tar(place / "ILSVRC2012_img_train.tar", imagenet_train()),
    "tree": lambda place: write_tree(place / "ILSVRC/Data/CLS-LOC/train", TREE),
    "flat directory": lambda place: write_tree(place / "flat", FLAT),
    "tar of a tree": lambda place: write_tar(place / "x.tar", {f"./train/{k}": v for k, v in TREE.items()}),
}
# the ground truth of four images, in numbers of the devkit and in ids
IDS = {1: "n02119789", 2: "n02100735", 3: "n01440764"}
TRUTH = [3, 1, 1, 2]
VAL_IDS = [IDS[number] for number in TRUTH]


def prepared(place, **choices):
    choices = {"size": 16, "allow_partial": True} | choices
    return prepare_imagenet(ImageNetRequest(home=place / "data", **choices))


def all_of(split):
    dataset = PreparedDataset(split.path)
    indices = np.arange(dataset.count)
    return dataset.read(indices), dataset.labels(indices)


def shades(images):
    """The red of the middle, which tells the photo."""
    return np.round(images[:, 8, 8, 0].astype(int) / 20).astype(int).tolist()


@pytest.mark.parametrize("form", TRAIN)
def test_train(form, tmp_path):
    (split,) = prepared(tmp_path, train=TRAIN[form](tmp_path)).splits
    images, labels = all_of(split)
    assert images.shape == (6, 16, 16, 3)
    assert split.class_names == WORDNET_IDS
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert shades(images) == list(range(6))
    record = PreparedDataset(split.path).record
    assert (record.name, record.split, record.resize_recipe) == ("imagenet_16", "train", "guided")


def devkit_archive(place):
    return write_tar(place / "ILSVRC2012_devkit_t12.tar.gz", devkit_members(TRUTH, IDS), "w:gz")


def devkit_directory(place):
    return write_tree(place, devkit_members(TRUTH, IDS)) / "ILSVRC2012_devkit_t12"


def kaggle(place):
    return write_tree(place, {"LOC_val_solution.csv": solution_csv(VAL_IDS)}) / "LOC_val_solution.csv"


@pytest.mark.parametrize("labels", [devkit_archive, devkit_directory, kaggle])
@pytest.mark.parametrize("beside", [True, False])
def test_val_with_its_classes(labels, beside, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    source = write_tar(tmp_path / "ILSVRC2012_img_val.tar", imagenet_val())
    path = labels(tmp_path if beside else tmp_path / "elsewhere")
    (split,) = prepared(tmp_path, val=source, val_labels=None if beside else path).splits
    images, found = all_of(split)
    assert shades(images) == [0, 1, 2, 3]
    assert [split.class_names[label] for label in found] == VAL_IDS
    assert split.split == "val"


def test_val_from_directories(tmp_path):
    flat = write_tree(tmp_path / "flat", imagenet_val())
    kaggle(tmp_path)
    tree = write_tree(
        tmp_path / "tree", {f"{VAL_IDS[i]}/{k}": v for i, (k, v) in enumerate(imagenet_val().items())}
    )
    (of_flat,) = prepared(tmp_path / "a", val=flat).splits
    (of_tree,) = prepared(tmp_path / "b", val=tree).splits
    assert all_of(of_flat)[1].tolist() == [0, 2, 2, 1]
    # a tree has the order of its paths
    assert sorted(shades(all_of(of_tree)[0])) == [0, 1, 2, 3]
    assert all_of(of_tree)[1].tolist() == [0, 1, 2, 2]


def test_both_splits_number_their_classes_alike(tmp_path):
    """Of a part of ImageNet, train and val may hold different classes."""
    train = write_tree(tmp_path / "train", {k: v for k, v in TREE.items() if WORDNET_IDS[0] not in k})
    val = write_tree(tmp_path / "val", {f"{WORDNET_IDS[0]}/ILSVRC2012_val_00000001.JPEG": photo(1)})
    for split in prepared(tmp_path, train=train, val=val).splits:
        assert split.class_names == WORDNET_IDS
    # once more keeps what is there
    assert all(split.already_there for split in prepared(tmp_path, train=train, val=val).splits)


def test_the_published_counts_need_no_allowance(tmp_path, monkeypatch):
    train = TRAIN["tar of tars"](tmp_path)
    with pytest.raises(CorruptError, match="is not the published ImageNet") as caught:
        prepared(tmp_path, train=train, allow_partial=False)
    assert caught.value.where.splitlines() == [
        "train has 6 images, the published one 1,281,167",
        "it has 3 classes, the published one 1000",
    ]
    monkeypatch.setattr(imagenet, "COUNTS", {"train": 6, "val": 4})
    monkeypatch.setattr(imagenet, "CLASSES", 3)
    (split,) = prepared(tmp_path, train=train, allow_partial=False).splits
    assert PreparedDataset(split.path).record.split_rule == "the published train split"


def test_odd_images_of_imagenet_are_used(tmp_path):
    """One is a PNG by content, some are CMYK or gray, whatever their names say."""
    from PIL import Image

    tree = write_tree(tmp_path / "t", {"n01440764/n01440764_1.JPEG": photo(1, "PNG")})
    Image.new("CMYK", (40, 30), (0, 255, 0, 0)).save(tree / "n01440764/n01440764_2.JPEG", format="JPEG")
    Image.new("L", (40, 30), 77).save(tree / "n01440764/n01440764_3.JPEG", format="JPEG")
    (split,) = prepared(tmp_path, train=tree).splits
    assert split.count == 3
    assert all_of(split)[0][2, 8, 8].tolist() == [77, 77, 77]


def inner(members, place):
    return write_tar(place / "inner", members).read_bytes()


def link_tar(place):
    path = place / "inner"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("n01440764_2.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    write_tar(path, {"n01440764_1.JPEG": photo(1)}, "a")
    return path.read_bytes()


def test_links_in_inner_tars_are_passed_over(tmp_path):
    source = write_tar(tmp_path / "x.tar", {"n01440764.tar": link_tar(tmp_path)})
    result = prepared(tmp_path, train=source)
    assert (result.splits[0].count, result.passed_over) == (1, 1)


@pytest.mark.parametrize("form", ["tar", "directory"])
def test_notes_of_macos_are_passed_over(form, tmp_path):
    members = imagenet_val(2) | {"._ILSVRC2012_val_00000001.JPEG": b"\0\5\x16\7"}
    (tmp_path / "LOC_val_solution.csv").write_bytes(solution_csv(list(WORDNET_IDS[:2])))
    write = {"tar": write_tar, "directory": write_tree}[form]
    result = prepared(tmp_path, val=write(tmp_path / "val", members))
    assert (result.splits[0].count, result.passed_over) == (2, 1)


def test_what_is_read_decides_whether_it_is_the_same_source(tmp_path):
    root = write_tree(tmp_path / "train", TREE)

    def source():
        with imagenet.open_train(root) as split:
            return split.images.identity(), split.images.origin()

    before = source()
    assert before[1].size_bytes == sum(map(len, TREE.values()))
    (root / ".DS_Store").write_bytes(b"x")
    assert source() == before
    os.utime(root / next(iter(TREE)), ns=(1, 1))
    assert source()[0] != before[0]


def without_its_end(members, place):
    """An inner tar that runs into the next header of the outer one."""
    content = inner(members, place)
    return content[: content.rstrip(b"\0").__len__() // 512 * 512 + 512]


ONE = {"n01440764_1.JPEG": photo(1)}
WRONG = {
    "nothing there": (None, MissingError, "there is no"),
    "a zip": (lambda place: write_zip(place / "x.tar", ONE).read_bytes(), MissingError, "nor a tar"),
    "inner damage": (lambda _: {"n01440764.tar": b"x" * 5000}, CorruptError, "damaged"),
    "inner cut": (lambda place: {"n01440764.tar": inner(ONE, place)[:1500]}, CorruptError, "damaged"),
    "inner without its end": (
        lambda place: {"n01440764.tar": without_its_end(ONE, place), "n02100735.tar": inner(ONE, place)},
        CorruptError,
        "damaged",
    ),
    "an inner outside name": (
        lambda place: {"n01440764.tar": inner({"../n01440764_1.JPEG": b"x"}, place)},
        CorruptError,
        "outside",
    ),
    "an inner absolute name": (
        lambda place: {"n01440764.tar": inner({"/n01440764_1.JPEG": b"x"}, place)},
        CorruptError,
        "outside",
    ),
    "no ids": (
        lambda place: {"cats.tar": inner({"cat_1.JPEG": photo(1)}, place)},
        CorruptError,
        "no known class",
    ),
    "validation images": (lambda _: imagenet_val(), CorruptError, "no known class"),
    "a bad image": (
        lambda place: {"n01440764.tar": inner({"n01440764_1.JPEG": photo(1)[:200]}, place)},
        CorruptError,
        "n01440764/n01440764_1.JPEG",
    ),
    "empty": (lambda _: {"readme.txt": b"x"}, MissingError, "holds no images"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_inputs(wrong, tmp_path):
    made, kind, words = WRONG[wrong]
    source = tmp_path / "x.tar"
    content = made(tmp_path) if made else None
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content is not None:
        write_tar(source, content)
    (tmp_path / "inner").unlink(missing_ok=True)
    with pytest.raises(DiffcliError) as caught:
        prepared(tmp_path, train=source)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"x.tar"}


def truth_file(members, name, content):
    return {k: content if k.endswith(name) else v for k, v in members.items()}


MEMBERS = devkit_members(TRUTH, IDS)
BAD_LABELS = {
    "none at all": ({}, MissingError, "do not tell their classes"),
    "no meta": ({"d/ILSVRC2012_validation_ground_truth.txt": b"1\n"}, MissingError, "holds no meta.mat"),
    "no truth": ({"d/meta.mat": b"x"}, MissingError, "holds no ILSVRC2012_validation"),
    "no matlab": (truth_file(MEMBERS, "meta.mat", b"text"), CorruptError, "meta.mat cannot be read"),
    "a cut matlab": (
        truth_file(MEMBERS, "meta.mat", MEMBERS["ILSVRC2012_devkit_t12/data/meta.mat"][:300]),
        CorruptError,
        "meta.mat cannot be read",
    ),
    "a huge matlab": (truth_file(MEMBERS, "meta.mat", os.urandom(2**20 + 1)), CorruptError, "meta.mat has"),
    "an unknown number": (truth_file(MEMBERS, "truth.txt", b"3\n1\n7\n2\n"), CorruptError, "line 3: '7'"),
    "a class with children": (truth_file(MEMBERS, "truth.txt", b"3\n1\n4\n2\n"), CorruptError, "line 3: '4'"),
    "too few": (truth_file(MEMBERS, "truth.txt", b"3\n1\n"), CorruptError, "no known class"),
    "no ids": (devkit_members(TRUTH, {1: "cat", 2: "dog", 3: "cow"}), CorruptError, "is no WordNet id"),
}


@pytest.mark.parametrize("bad", BAD_LABELS)
def test_bad_devkits(bad, tmp_path):
    members, kind, words = BAD_LABELS[bad]
    source = write_tar(tmp_path / "val.tar", imagenet_val())
    path = write_tar(tmp_path / "kit.tar.gz", members, "w:gz") if members else None
    with pytest.raises(DiffcliError) as caught:
        prepared(tmp_path, val=source, val_labels=path)
    assert type(caught.value) is kind
    assert words in str(caught.value)


@pytest.mark.parametrize("line", ["ILSVRC2012_val_00000001,cat 1 2 3 4", "1,2,3", "n01440764", "\0"])
def test_bad_solutions(line, tmp_path):
    source = write_tar(tmp_path / "val.tar", imagenet_val())
    (tmp_path / "LOC_val_solution.csv").write_text(f"ImageId,PredictionString\n{line}\n")
    with pytest.raises(CorruptError, match="does not tell classes"):
        prepared(tmp_path, val=source)


def test_a_size_that_cannot_be_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UsageError, match="--size is 0"):
        prepared(tmp_path, size=0, train=tmp_path / "gone.tar")


def test_without_scipy_the_devkit_says_what_else_to_give(tmp_path, monkeypatch):
    devkit_archive(tmp_path)
    source = write_tar(tmp_path / "ILSVRC2012_img_val.tar", imagenet_val())
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(UsageError, match="takes scipy") as caught:
        prepared(tmp_path, val=source)
    assert "LOC_val_solution.csv" in caught.value.remedy
