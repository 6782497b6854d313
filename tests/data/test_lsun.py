"""`prepare lsun` on databases and zips of the published layout."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
import zipfile

import lmdb
import numpy as np
import pytest
from PIL import Image

from diffcli.commands import unpacking
from diffcli.commands.prepare_lsun import LsunRequest, prepare_lsun
from diffcli.commands.unpacking import unpacked
from diffcli.data.downloads.partial_file import PartialFile
from diffcli.data.prepared import PreparedDataset
from diffcli.data.sources import lsun
from diffcli.errors import (
    CorruptError,
    DiffcliError,
    InterruptedRunError,
    LockedError,
    MissingError,
    UsageError,
)
from diffcli.images.resize import boxed_square
from diffcli.records.datasets import PrepareListener
from http_server import serving
from published_layouts import encoded, lsun_directory, lsun_records, lsun_zip, noise, write_zip

RECORDS = lsun_records()
KEYS = sorted(RECORDS)
# the shade of each record in the order of its key
SHADES = [40 * list(RECORDS).index(key) for key in KEYS]
FORMS = {
    "zip": lambda place: lsun_zip(place / "bedroom_train_lmdb.zip", RECORDS),
    "directory": lambda place: lsun_directory(place / "bedroom_train_lmdb", RECORDS),
    "directory above": lambda place: lsun_directory(place / "in/bedroom_train_lmdb", RECORDS).parent,
    "file": lambda place: lsun_directory(place / "bedroom_train_lmdb", RECORDS) / "data.mdb",
}


def request(place, **choices):
    choices = {"category": "bedroom", "size": 32, "allow_partial": True} | choices
    return LsunRequest(home=place / "data", **choices)


def prepared(place, listener=PrepareListener(), **choices):  # noqa: B008 -- frozen
    return prepare_lsun(request(place, **choices), listener)


def all_of(split):
    dataset = PreparedDataset(split.path)
    return dataset.read(np.arange(dataset.count))


@pytest.mark.parametrize("form", FORMS)
def test_records_in_the_order_of_their_keys(form, tmp_path):
    (tmp_path / "x").mkdir()
    source = FORMS[form](tmp_path / "x")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "x").rglob("*")}
    result = prepared(tmp_path, train=source)
    assert result.name == "lsun_bedroom_32"
    (split,) = result.splits
    images = all_of(split)
    assert images.shape == (5, 32, 32, 3)
    assert np.abs(images.mean(axis=(1, 2, 3)) - SHADES).max() < 2
    record = PreparedDataset(split.path).record
    assert (record.variant, record.label_source, record.resize_recipe) == ("bedroom", "none", "box")
    assert record.source_url == source.as_uri()
    # nothing was written beside the source, and nothing unpacked is left
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "x").rglob("*")} == before
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["lsun_bedroom_32"]


def test_a_directory_that_cannot_be_written_is_read(tmp_path):
    source = lsun_directory(tmp_path / "bedroom_train_lmdb", RECORDS)
    (source / "lock.mdb").unlink()
    os.chmod(source, 0o555)  # noqa: PTH101
    assert prepared(tmp_path, train=source).splits[0].count == 5
    assert [path.name for path in source.iterdir()] == ["data.mdb"]


def test_the_box_is_that_of_the_published_data():
    """One box filter to round(scale * side), then the centre; at the stored size it changes nothing."""
    image = Image.fromarray(noise(1, 61, 90, 3)[0])
    scale = 32 / 61
    scaled = image.resize((round(scale * 90), round(scale * 61)), Image.Resampling.BOX)
    left = (scaled.width - 32) // 2
    assert np.array_equal(boxed_square(image, 32, channels=3), np.asarray(scaled)[:, left : left + 32])
    assert np.array_equal(boxed_square(image, 61, channels=3), np.asarray(image)[:, 14:75])
    with pytest.raises(CorruptError, match="too elongated"):
        boxed_square(Image.new("L", (60_000, 1)), 256, channels=1)


@pytest.mark.parametrize("recipe", ["box", "guided", "improved"])
def test_recipes_agree_at_the_stored_size(recipe, tmp_path):
    pixels = noise(1, 48, 60, 3)[0]
    source = lsun_directory(tmp_path / "x", {KEYS[0]: encoded(pixels, "WEBP", lossless=True)})
    (split,) = prepared(tmp_path, train=source, size=48, recipe=recipe).splits
    assert np.array_equal(all_of(split)[0], pixels[:, 6:54])


def test_gray_images_become_rgb(tmp_path):
    """The reference ends at the first of them."""
    gray = encoded(noise(1, 40, 40)[0], "JPEG")
    (split,) = prepared(tmp_path, train=lsun_directory(tmp_path / "x", {KEYS[0]: gray})).splits
    assert split.channels == 3


# ---- counts and damage ----


def test_counts_are_checked(tmp_path, monkeypatch):
    source = FORMS["directory"](tmp_path)
    with pytest.raises(CorruptError, match="is not the published LSUN bedroom") as caught:
        prepared(tmp_path, train=source, allow_partial=False)
    assert caught.value.where == "train has 5 images, the published one 3,033,042"
    published = {key: dataclasses.replace(split, count=5) for key, split in lsun.PUBLISHED.items()}
    monkeypatch.setattr(lsun, "PUBLISHED", published)
    (split,) = prepared(tmp_path, train=source, allow_partial=False).splits
    assert PreparedDataset(split.path).record.split_rule == "the published train split"


BAD = {"text": b"no image", "empty": b"", "cut": encoded(noise(1, 64, 64, 3)[0], "WEBP")[:400]}


def test_damaged_records_are_listed_or_left_out(tmp_path, monkeypatch):
    bad = {hashlib.sha1(name.encode()).hexdigest().encode(): content for name, content in BAD.items()}
    source = lsun_directory(tmp_path / "x", RECORDS | bad)
    published = {key: dataclasses.replace(split, count=8) for key, split in lsun.PUBLISHED.items()}
    monkeypatch.setattr(lsun, "PUBLISHED", published)
    with pytest.raises(CorruptError, match="3 of 8 images") as caught:
        prepared(tmp_path, train=source, allow_partial=False)
    assert [line.split(": ")[0] for line in caught.value.where.splitlines()] == [
        f"record {key.decode()}" for key in sorted(bad)
    ]
    told = []
    (split,) = prepared(tmp_path, PrepareListener(notice=told.append), train=source).splits
    assert np.abs(all_of(split).mean(axis=(1, 2, 3)) - SHADES).max() < 2
    assert "3 damaged records are left out" in told
    rule = PreparedDataset(split.path).record.split_rule
    assert rule == "the published train split; 3 damaged are left out"


def test_nothing_but_damage_is_no_dataset(tmp_path):
    with pytest.raises(MissingError, match="no image that can be decoded"):
        prepared(tmp_path, train=lsun_directory(tmp_path / "x", {KEYS[0]: b"text"}))


def data_of(place, records=RECORDS):
    return (lsun_directory(place / "made", records) / "data.mdb").read_bytes()


WRONG = {
    "nothing there": (None, MissingError, "there is no"),
    "an empty directory": (lambda _: {}, MissingError, "holds no data.mdb"),
    "two of them": (
        lambda place: {f"{n}/data.mdb": data_of(place / n) for n in "ab"},
        MissingError,
        "holds 2",
    ),
    "no database": (lambda _: {"data.mdb": b"text" * 5000}, CorruptError, "no LMDB of LSUN"),
    "empty": (lambda _: {"data.mdb": b""}, CorruptError, "no LMDB of LSUN"),
    "no records": (lambda place: {"data.mdb": data_of(place, {})}, MissingError, "no records"),
    "half of it": (lambda place: {"data.mdb": data_of(place)[:9000]}, CorruptError, "no LMDB of LSUN"),
    "long keys": (
        lambda place: {"data.mdb": data_of(place, {b"k" * 90: b"x"})},
        CorruptError,
        "none of LSUN",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_inputs(wrong, tmp_path):
    made, kind, words = WRONG[wrong]
    source = tmp_path / "bedroom_train_lmdb"
    if made:
        source.mkdir()
        for name, content in made(tmp_path).items():
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_bytes(content)
    with pytest.raises(DiffcliError) as caught:
        prepared(tmp_path, train=source)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert not (tmp_path / "data").exists()


ZIPS_WRONG = {
    "no archive": (b"text\n" * 200, MissingError, "no tar, tar.gz or zip"),
    "no database": ({"readme.txt": b"x"}, MissingError, "holds no data.mdb"),
    "two": ({"a/data.mdb": b"x", "b/data.mdb": b"x"}, MissingError, "holds 2 data.mdb"),
    "outside": ({"../data.mdb": b"x"}, CorruptError, "a place outside"),
    "damaged": ({"a/data.mdb": b"x" * 9000}, CorruptError, "no LMDB of LSUN"),
    "a bomb": ({"a/data.mdb": bytes(80 * 2**20)}, CorruptError, "more than 200 times"),
}


@pytest.mark.parametrize("wrong", ZIPS_WRONG)
def test_wrong_zips_leave_nothing(wrong, tmp_path):
    content, kind, words = ZIPS_WRONG[wrong]
    source = tmp_path / "x.zip"
    if isinstance(content, bytes):
        source.write_bytes(content)
    else:
        write_zip(source, content)
    with pytest.raises(DiffcliError) as caught:
        prepared(tmp_path, train=source)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [source]


def test_a_damaged_zip_leaves_nothing(tmp_path):
    """Also when the damage is met after millions of bytes were written."""
    source = write_zip(tmp_path / "x.zip", {"cat/data.mdb": os.urandom(6 * 2**20)}, zipfile.ZIP_STORED)
    content = bytearray(source.read_bytes())
    content[5 * 2**20] ^= 1
    source.write_bytes(content)
    with pytest.raises(CorruptError):
        prepared(tmp_path, train=source)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [source]


DAMAGE_CODE = """
import sys; from pathlib import Path
sys.path.insert(0, sys.argv[1])
from data.test_lsun import prepared
from diffcli.errors import DiffcliError
place = Path(sys.argv[2])
for number in range(int(sys.argv[3])):
    try:
        prepared(place / f"home-{number}", train=place / str(number))
    except DiffcliError:
        pass
print("alive")
"""


def test_no_damage_ends_the_process(tmp_path):
    """A database that is mapped and damaged could."""
    whole = data_of(tmp_path, {key: content * 3 for key, content in lsun_records(40, 24).items()})
    randomness = random.Random(3)
    trials = 40
    for number in range(trials):
        damaged = bytearray(whole)
        for _ in range(8):
            page = randomness.randrange(len(whole) // 4096)
            damaged[page * 4096 + randomness.randrange(120)] = randomness.randrange(256)
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "data.mdb").write_bytes(damaged)
    tests = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120
    done = subprocess.run(
        [sys.executable, "-c", DAMAGE_CODE, tests, str(tmp_path), str(trials)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "alive" in done.stdout


def test_a_database_with_pages_that_nobody_uses_is_read(tmp_path):
    """As one may be whose writer was killed."""
    source = FORMS["directory"](tmp_path)
    with lmdb.open(str(source), map_size=2**28) as environment:
        for _ in range(3):
            with environment.begin(write=True) as transaction:
                transaction.delete(KEYS[0])
                transaction.put(KEYS[0], RECORDS[KEYS[0]])
    assert prepared(tmp_path, train=source).splits[0].count == 5


@pytest.mark.parametrize("category", ["cat", "horse"])
def test_a_split_that_was_never_published_is_refused_before_anything_is_read(category, tmp_path):
    source = tmp_path / "never opened.zip"
    with pytest.raises(UsageError, match=f"LSUN {category} has no split val") as caught:
        prepared(tmp_path, category=category, train=source, val=source)
    assert caught.value.remedy == "leave --val out"


def identity_and_origin(source):
    file = lsun.find_data_file(source)
    with lsun.open_lsun("bedroom", "train", source, file, allow_partial=True) as opened:
        return opened.identity(), opened.origin()


@pytest.mark.parametrize("form", ["directory", "directory above", "file"])
def test_what_is_read_decides_whether_it_is_the_same_source(form, tmp_path):
    (tmp_path / "x").mkdir()
    source = FORMS[form](tmp_path / "x")
    file = lsun.find_data_file(source)
    before = identity_and_origin(source)
    # what readers and file managers leave beside it
    for name in ("lock.mdb", ".DS_Store"):
        (file.parent / name).write_bytes(b"x")
        (source.parent / name).write_bytes(b"x")
    assert identity_and_origin(source) == before
    assert before[1].size_bytes == file.stat().st_size
    assert before[1].sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    with lmdb.open(str(file), subdir=False, lock=False) as environment, environment.begin(write=True) as new:
        new.put(KEYS[0], RECORDS[KEYS[1]])
    assert identity_and_origin(source)[0] != before[0]


def test_whether_a_zip_is_the_published_one_is_told(tmp_path, monkeypatch):
    source = FORMS["zip"](tmp_path)
    told = []
    prepared(tmp_path, PrepareListener(notice=told.append), train=source)
    assert any(
        text.startswith("train: bedroom_train_lmdb.zip is another file than the published one")
        for text in told
    )
    file = dataclasses.replace(
        lsun.PUBLISHED["bedroom", "train"].file, sha256=hashlib.sha256(source.read_bytes()).hexdigest()
    )
    split = dataclasses.replace(lsun.PUBLISHED["bedroom", "train"], file=file)
    monkeypatch.setattr(lsun, "PUBLISHED", lsun.PUBLISHED | {("bedroom", "train"): split})
    prepared(tmp_path, PrepareListener(notice=told.append), train=source, force=True)
    assert told[-1] == "train: bedroom_train_lmdb.zip is the published file, by its SHA-256"
    told.clear()
    prepared(
        tmp_path, PrepareListener(notice=told.append), train=lsun_directory(tmp_path / "y", RECORDS), size=16
    )
    assert not [text for text in told if "published" in text]


# ---- zips and downloads ----


def test_an_interrupted_preparation_keeps_what_is_unpacked(tmp_path):
    source, begun = FORMS["zip"](tmp_path), []

    def interrupt(done, _total):
        if begun[-1] == "preparing":
            raise InterruptedRunError("stopped", signal_number=2)

    with pytest.raises(InterruptedRunError):
        prepared(
            tmp_path,
            PrepareListener(progress=interrupt, begin=lambda work, _unit: begun.append(work)),
            train=source,
        )
    (kept,) = (tmp_path / "data" / ".unpacked").iterdir()
    assert kept.stat().st_size
    told = []
    prepared(tmp_path, PrepareListener(notice=told.append), train=source)
    assert not [text for text in told if "unpacking" in text]
    assert not (tmp_path / "data" / ".unpacked").exists()


def test_two_preparations_share_what_is_unpacked(tmp_path):
    """The first that ends leaves it to the second, which may be another process."""
    source = FORMS["zip"](tmp_path)
    entered, over = threading.Event(), threading.Event()
    found = []

    def second():
        with unpacked(source, "data.mdb", home=tmp_path / "data", listener=PrepareListener()) as file:
            entered.set()
            assert over.wait(30)
            found.append(file.read_bytes())

    thread = threading.Thread(target=second)
    with unpacked(source, "data.mdb", home=tmp_path / "data", listener=PrepareListener()) as file:
        thread.start()
        assert entered.wait(30)
        content = file.read_bytes()
    assert file.exists()
    over.set()
    thread.join()
    assert found == [content]
    assert not (tmp_path / "data" / ".unpacked").exists()


def test_what_another_process_unpacks_is_left_alone(tmp_path):
    source = FORMS["zip"](tmp_path)
    with unpacked(source, "data.mdb", home=tmp_path / "data", listener=PrepareListener()) as file:
        pass
    file.parent.mkdir()
    with PartialFile(file) as other:
        other.append(b"half")
        with pytest.raises(LockedError, match="another process is writing"):
            prepared(tmp_path, train=source)
        assert other.path.read_bytes() == b"half"
        # as when the other is done just before the refusal
        file.write_bytes(b"whole")
        with pytest.raises(LockedError):
            unpacking._unpack(source, "data.mdb", file, PrepareListener())
        assert file.read_bytes() == b"whole"


def test_both_splits_come_from_a_mirror(tmp_path, monkeypatch):
    content = FORMS["zip"](tmp_path).read_bytes()
    small = {
        key: dataclasses.replace(
            split,
            file=dataclasses.replace(
                split.file, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
            ),
        )
        for key, split in lsun.PUBLISHED.items()
    }
    monkeypatch.setattr("diffcli.commands.prepare_lsun.PUBLISHED", small)
    with serving(content) as server:
        result = prepared(tmp_path, url=f"{server.base}/lsun/")
        assert len(server.asked) == 2
        cats = prepared(tmp_path, category="cat", url=f"{server.base}/lsun")
        assert len(server.asked) == 3
        downloads = tmp_path / "data" / ".downloads"
        names = ["bedroom_train_lmdb.zip", "bedroom_val_lmdb.zip", "cat.zip"]
        assert sorted(path.name for path in downloads.iterdir()) == names
        # what is there is kept without fetching it again
        shutil.rmtree(downloads)
        again = prepared(tmp_path, url=f"{server.base}/lsun/")
        assert len(server.asked) == 3
    assert [(split.split, split.count) for split in result.splits] == [("train", 5), ("val", 5)]
    assert [split.split for split in cats.splits] == ["train"]
    assert all(split.already_there for split in again.splits)


def test_what_is_there_is_kept_without_unpacking(tmp_path):
    source = FORMS["zip"](tmp_path)
    prepared(tmp_path, train=source)
    told, begun = [], []
    listener = PrepareListener(notice=told.append, begin=lambda verb, _unit: begun.append(verb))
    assert prepared(tmp_path, listener, train=source).splits[0].already_there
    assert begun == ["hashing the source", "verifying"]
    assert not told
    # another choice is refused as early
    with pytest.raises(UsageError, match="holds other images") as caught:
        prepared(tmp_path, listener, train=source, recipe="guided")
    assert caught.value.where.endswith("resize_recipe")
    assert not told


def test_only_the_database_counts_and_not_where_it_lies(tmp_path):
    """A lock.mdb appears beside one that is opened, and a directory may be moved."""
    source = FORMS["directory"](tmp_path)
    (source / "lock.mdb").unlink()
    prepared(tmp_path, train=source)
    (source / "lock.mdb").write_bytes(bytes(8192))
    assert prepared(tmp_path, train=source).splits[0].already_there
    moved = source.rename(tmp_path / "moved")
    assert prepared(tmp_path, train=moved).splits[0].already_there
    size_bytes = (moved / "data.mdb").stat().st_size
    shades = {key: RECORDS[other] for key, other in zip(KEYS, reversed(KEYS), strict=True)}
    other = lsun_directory(tmp_path / "other", shades)
    assert (other / "data.mdb").stat().st_size == size_bytes
    with pytest.raises(UsageError, match="from other files, or from another place"):
        prepared(tmp_path, train=other)


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    source = FORMS["zip"](tmp_path)
    monkeypatch.setitem(sys.modules, "lmdb", None)
    for act in (lambda: prepared(tmp_path, train=source), lambda: prepared(tmp_path)):
        with pytest.raises(UsageError, match="takes lmdb") as caught:
            act()
        assert "diffcli[lsun]" in caught.value.remedy
    assert not (tmp_path / "data").exists()
