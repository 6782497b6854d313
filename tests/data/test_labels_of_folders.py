"""Where the classes of one's own images come from, and images in npz files."""

from __future__ import annotations

import io
import json
import os
import zipfile

import numpy as np
import pytest

from diffcli.commands.prepare import FolderRequest, default_name, prepare_folder
from diffcli.config.sections import DataConfig
from diffcli.data.dataset import open_dataset
from diffcli.data.prepared import PreparedDataset
from diffcli.errors import CorruptError, DiffcliError, MissingError, UsageError
from published_layouts import encoded, noise, npz, write_tar, write_tree, write_zip

PIXELS = noise(4, 16, 16, 3)


def prepared(place, source, **choices):
    choices = {"size": 16} | choices
    return prepare_folder(FolderRequest(home=place / "data", source=source, **choices)).splits[0]


def classes_of(split):
    labels = PreparedDataset(split.path).labels(np.arange(split.count))
    return [split.class_names[label] for label in labels]


def edm_members(labels):
    """A zip of EDM: uncompressed, in folders of a thousand, with its dataset.json."""
    members = {f"00000/img{number:08d}.png": encoded(PIXELS[number]) for number in range(4)}
    listed = None if labels is None else [list(pair) for pair in zip(members, labels, strict=True)]
    return members | {"dataset.json": json.dumps({"labels": listed}).encode()}


FORMS = {
    "zip": lambda place, members: write_zip(place / "x.zip", members, zipfile.ZIP_STORED),
    "tar": lambda place, members: write_tar(place / "x.tar", members),
    "tree": lambda place, members: write_tree(place / "x", members),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_layout_of_edm(form, tmp_path):
    split = prepared(tmp_path, FORMS[form](tmp_path, edm_members([6, 9, 0, 6])))
    assert split.label_source == "dataset.json"
    # numbers keep their value, whatever classes are missing
    assert split.class_names == tuple("0123456789")
    dataset = PreparedDataset(split.path)
    assert dataset.labels(np.arange(4)).tolist() == [6, 9, 0, 6]
    assert np.array_equal(dataset.read(np.arange(4)), PIXELS)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("top", ["set/", "sets/of edm/"])
def test_the_layout_of_edm_below_a_directory(form, top, tmp_path):
    """As `zip -r x.zip set` packs it: the directory comes along."""
    members = {f"{top}{name}": content for name, content in edm_members([6, 9, 0, 6]).items()}
    split = prepared(tmp_path, FORMS[form](tmp_path, members))
    assert split.label_source == "dataset.json"
    assert classes_of(split) == ["6", "9", "0", "6"]


def test_labels_beside_a_part_of_the_images_do_not_count(tmp_path):
    members = {f"a/{name}": content for name, content in edm_members([6, 9, 0, 6]).items()}
    split = prepared(tmp_path, FORMS["zip"](tmp_path, members | {"b/img9.png": encoded(PIXELS[0])}))
    assert (split.label_source, split.class_names) == ("none", ())


def test_edm_without_labels(tmp_path):
    split = prepared(tmp_path, FORMS["zip"](tmp_path, edm_members(None)))
    assert (split.label_source, split.class_names) == ("none", ())


def test_a_folder_is_trained_on_with_the_same_classes(tmp_path):
    source = FORMS["tree"](tmp_path, edm_members([1, 0, 0, 1]))
    dataset = open_dataset(DataConfig(resolution=16), home=tmp_path, directory=source)
    assert dataset.labels(np.arange(4)).tolist() == [1, 0, 0, 1]
    before = dataset.content_hash
    (source / "dataset.json").write_bytes(edm_members([1, 0, 0, 0])["dataset.json"])
    changed = open_dataset(DataConfig(resolution=16), home=tmp_path, directory=source)
    assert changed.content_hash != before


NAMED = {f"{kind}_{number}.png": encoded(PIXELS[number]) for number, kind in enumerate(("dog", "cat"))}
LABEL_FILES = {
    "l.csv": b"path,class\ndog_0.png,wolf\ncat_1.png,lynx\nother.png,aardvark\n",
    "l.CSV": b"cat_1.png,lynx\n\ndog_0.png,wolf\ngone.png,aardvark\n",
    "l.json": b'{"dog_0.png": "wolf", "cat_1.png": "lynx", "x": "aardvark"}',
    "edm.json": b'{"labels": [["dog_0.png", "wolf"], ["cat_1.png", "lynx"], ["y", "aardvark"]]}',
}


@pytest.mark.parametrize("name", LABEL_FILES)
def test_a_file_of_labels_comes_first(name, tmp_path):
    source = write_tree(
        tmp_path / "x", NAMED | {"dataset.json": b'{"labels": [["dog_0.png", 0], ["cat_1.png", 0]]}'}
    )
    (tmp_path / name).write_bytes(LABEL_FILES[name])
    split = prepared(tmp_path, source, labels_file=tmp_path / name)
    assert split.label_source == "labels file"
    # all classes of the file, so that a part of the images has the numbers of the whole
    assert split.class_names == ("aardvark", "lynx", "wolf")
    assert classes_of(split) == ["lynx", "wolf"]


CSVS_OF_NUMBERS = {
    "a header": b"file,label\ndog_0.png,10\ncat_1.png,2\n",
    "any header": b"filepath,target\ndog_0.png,10\ncat_1.png,2\n",
    "no header": b"dog_0.png,10\ncat_1.png,2\n",
    "the mark of spreadsheets": b"\xef\xbb\xbfpath,class\r\ndog_0.png,10\r\ncat_1.png,2\r\n",
    "the mark before an image": b"\xef\xbb\xbfdog_0.png,10\ncat_1.png,2\n",
    "spaces": b'path, class\n"dog_0.png", 10\ncat_1.png , "2"\n',
    "numbers of pandas": b"path,class\ndog_0.png,10.0\ncat_1.png,2.0\n",
}


@pytest.mark.parametrize("written", CSVS_OF_NUMBERS)
def test_numbers_in_a_csv_are_numbers(written, tmp_path):
    (tmp_path / "l.csv").write_bytes(CSVS_OF_NUMBERS[written])
    split = prepared(tmp_path, write_tree(tmp_path / "x", NAMED), labels_file=tmp_path / "l.csv")
    assert classes_of(split) == ["2", "10"]
    assert len(split.class_names) == 11


def test_names_count_where_no_file_does(tmp_path):
    assert classes_of(prepared(tmp_path, write_tree(tmp_path / "x", NAMED))) == ["cat", "dog"]
    # the record of a prepared dataset is no file of labels
    (tmp_path / "x" / "dataset.json").write_text('{"schema": 1, "name": "x"}')
    assert prepared(tmp_path, tmp_path / "x", name="b").label_source == "filename"


def test_directories_count_when_they_are_asked_for(tmp_path):
    source = FORMS["tree"](tmp_path, edm_members([1, 0, 0, 1]))
    split = prepared(tmp_path, source, labels="directories")
    assert (split.label_source, split.class_names) == ("directories", ("00000",))


WRONG_JSON = {
    "no JSON": (b"{", "it is no JSON"),
    "deep": (b"[" * 200_000, "it is no JSON"),
    "no list": (b'{"labels": 3}', "no list of path and class"),
    "no pairs": (b'{"labels": [["x.png"]]}', "no list of path and class"),
    "an empty list": (b'{"labels": []}', "names no image"),
    "a fraction": (b'{"labels": [["dog_0.png", 0.5]]}', "is not a path and a class"),
    "a list for a class": (b'{"labels": [["dog_0.png", [0, 1]]]}', "is not a path and a class"),
    "a negative number": (b'{"labels": [["dog_0.png", -1]]}', "class -1 of dog_0.png"),
    "a huge number": (b'{"labels": [["dog_0.png", 1000000]]}', "class 1000000 of dog_0.png"),
    "two classes": (b'{"labels": [["dog_0.png", 1], ["dog_0.png", 2]]}', "dog_0.png has two classes"),
    "numbers and names": (b'{"labels": [["dog_0.png", 1], ["cat_1.png", "cat"]]}', "others are names"),
    "an image without": (
        b'{"labels": [["dog_0.png", 1]]}',
        "1 images have no class in it; the first: cat_1.png",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_JSON)
def test_wrong_labels(wrong, tmp_path):
    content, words = WRONG_JSON[wrong]
    source = write_zip(tmp_path / "x.zip", NAMED | {"dataset.json": content})
    with pytest.raises(CorruptError, match=r"dataset\.json does not tell the classes") as caught:
        prepared(tmp_path, source)
    assert words in caught.value.where
    assert not (tmp_path / "data").exists()


WRONG_CSVS = {
    "no class": "cat_1.png,cat\ndog_0.png",
    "too much": "cat_1.png,cat\ndog_0.png,a,b",
    "no UTF-8": "cat_1.png,cat\n\xff",
    "a number among names": "cat_1.png,cat\ndog_0.png,3",
    "a name among numbers": "path,class\ncat_1.png,2\ndog_0.png,dog",
    "a gap among numbers": "path,class\ncat_1.png,2\ndog_0.png,",
    "a negative number": "cat_1.png,2\ndog_0.png,-1",
    "a number of many digits": "cat_1.png,2\ndog_0.png," + "9" * 5000,
}


@pytest.mark.parametrize("wrong", WRONG_CSVS)
def test_wrong_csvs(wrong, tmp_path):
    (tmp_path / "l.csv").write_bytes(WRONG_CSVS[wrong].encode("latin-1"))
    with pytest.raises(CorruptError, match="does not tell the classes"):
        prepared(tmp_path, write_tree(tmp_path / "x", NAMED), labels_file=tmp_path / "l.csv")
    with pytest.raises(MissingError):
        prepared(tmp_path, tmp_path / "x", labels_file=tmp_path / "gone.csv")


# ---- npz ----


@pytest.mark.parametrize("compressed", [False, True])
def test_an_npz_of_samples(compressed, tmp_path):
    source = tmp_path / "samples_4x16x16x3.npz"
    source.write_bytes(npz(compressed=compressed, arr_0=PIXELS, arr_1=np.array([2, 0, 2, 1])))
    split = prepared(tmp_path, source)
    dataset = PreparedDataset(split.path)
    assert np.array_equal(dataset.read(np.arange(4)), PIXELS)
    assert dataset.labels(np.arange(4)).tolist() == [2, 0, 2, 1]
    assert (split.label_source, split.class_names) == ("source", ("0", "1", "2"))
    assert split.path.parent.name == default_name(source, 16) == "samples_4x16x16x3_16"


def test_an_npz_without_labels_is_resized_like_any_images(tmp_path):
    source = tmp_path / "gray.npz"
    source.write_bytes(npz(arr_0=noise(3, 20, 40)))
    split = prepared(tmp_path, source, channels=1)
    assert (split.count, split.height, split.channels, split.class_names) == (3, 16, 1, ())


class Trap:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (self.canary,)


WRONG_NPZ = {
    "text": (b"text", "damaged"),
    "cut": (npz(arr_0=PIXELS)[:900], "damaged"),
    "no arr_0": (npz(mu=PIXELS), "no usable array 'arr_0'"),
    "floats": (npz(arr_0=PIXELS / 255), "arr_0 is float64"),
    "planes": (npz(arr_0=noise(2, 3, 16, 16)), "arr_0 is uint8 (2, 3, 16, 16)"),
    "no images": (npz(arr_0=noise(0, 16, 16, 3)), "arr_0 is uint8 (0, 16, 16, 3)"),
    "fewer labels": (npz(arr_0=PIXELS, arr_1=[1]), "arr_1 is int64 (1,) for 4 images"),
    "a negative label": (npz(arr_0=PIXELS, arr_1=[0, 1, 2, -1]), "classes count from 0"),
    "a million classes": (npz(arr_0=PIXELS, arr_1=[0, 1, 2, 10**6]), "classes count from 0"),
    "one-hot labels": (npz(arr_0=PIXELS, arr_1=np.eye(4)), "arr_1 is float64"),
    "a trap": (npz(arr_0=np.array([Trap("canary")], dtype=object)), "damaged"),
    "a trap for labels": (npz(arr_0=PIXELS, arr_1=np.array([Trap("canary")] * 4)), "damaged"),
    "a bomb": (npz(compressed=True, arr_0=np.zeros((6000, 64, 64, 3), np.uint8)), "200 times its size"),
}


def npy_claiming(dtype: str, shape: tuple[int, ...], content: bytes) -> bytes:
    """An array whose header says what numpy would not write."""
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


CLAIMS = {
    "values of no bytes": ("'|V0'", (4,), b""),
    "texts of no letters": ("'|S0'", (4,), b""),
    "arrays of arrays": ("('<i8', (2,))", (4,), bytes(64)),
    "a negative count": ("'<i8'", (-2, -2), bytes(32)),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_arrays_of_impossible_sizes(claim, tmp_path):
    pixels = zipfile.ZipFile(io.BytesIO(npz(arr_0=PIXELS))).read("arr_0.npy")
    members = {"arr_0.npy": pixels, "arr_1.npy": npy_claiming(*CLAIMS[claim])}
    source = write_zip(tmp_path / "x.npz", members)
    with pytest.raises(CorruptError, match="damaged") as caught:
        prepared(tmp_path, source)
    assert "an impossible size" in caught.value.where


@pytest.mark.parametrize("wrong", WRONG_NPZ)
def test_wrong_npz(wrong, tmp_path, monkeypatch):
    content, words = WRONG_NPZ[wrong]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DiffcliError) as caught:
        prepared(tmp_path, tmp_path / "x.npz")
    assert type(caught.value) is CorruptError
    assert words in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_an_npz_takes_no_other_labels(tmp_path):
    (tmp_path / "x.npz").write_bytes(npz(arr_0=PIXELS))
    with pytest.raises(UsageError, match="has its labels in arr_1"):
        prepared(tmp_path, tmp_path / "x.npz", labels="directories")
