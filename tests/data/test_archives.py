"""Archives of images: the same dataset as from the unpacked tree, within limits, never in silence less."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffcli.commands.prepare import FolderRequest, default_name, prepare_folder
from diffcli.config.sections import DataConfig
from diffcli.data.dataset import open_dataset
from diffcli.data.prepared import PreparedDataset
from diffcli.data.sources.archives import Limits, open_archive
from diffcli.errors import CorruptError, MissingError, UsageError

NAMES = (
    "b.d/cat_2.png",
    "b/cat_1.png",
    "b/deep/dog_9.png",
    "b-/dog_1.PNG",
    "bird_1.png",
    "größe_1.png",
    "a_1.png",
)


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20 + shade % 7, 20), (shade, 255 - shade, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def tree(tmp_path) -> Path:
    root = tmp_path / "photos"
    for number, name in enumerate(NAMES):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(30 * number))
    (root / "readme.txt").write_text("no image\n")
    return root


def members_of(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def write_tar(path, members, *, kind=tarfile.PAX_FORMAT, mode="w"):
    """members: name -> content, or name -> TarInfo for what is no file."""
    with tarfile.open(path, mode, format=kind) as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                header = tarfile.TarInfo(name)
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))
    return path


def write_zip(path, members, *, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


WRITERS = {
    "pax.tar": write_tar,
    "gnu.tar": lambda path, members: write_tar(path, members, kind=tarfile.GNU_FORMAT),
    "short.tar.gz": lambda path, members: write_tar(path, members, mode="w:gz"),
    "UPPER.TGZ": lambda path, members: write_tar(path, members, mode="w:gz"),
    "deflated.zip": write_zip,
    "stored.zip": lambda path, members: write_zip(path, members, method=zipfile.ZIP_STORED),
}


def prepared(home: Path, source: Path, **choices) -> Path:
    return prepare_folder(FolderRequest(home=home, source=source, size=16, **choices)).splits[0].path


def content_of(dataset: Path) -> dict[str, object]:
    """All bytes but those of where it came from."""
    record = dataclasses.asdict(PreparedDataset(dataset).record)
    of_the_source = {name for name in record if name.startswith("source_")} | {"name", "split_rule"}
    facts = {name: value for name, value in record.items() if name not in of_the_source}
    return facts | {path.name: path.read_bytes() for path in dataset.glob("*.npy")}


@pytest.mark.parametrize("archive", WRITERS)
def test_an_archive_gives_the_bytes_of_its_tree(archive, tree, tmp_path):
    expected = content_of(prepared(tmp_path / "data", tree))
    assert expected["class_names"] == ("a", "bird", "cat", "dog", "größe")
    members = list(members_of(tree).items())
    random.Random(0).shuffle(members)
    source = WRITERS[archive](tmp_path / archive, dict(members))
    found = prepared(tmp_path / "data", source)
    assert content_of(found) == expected
    record = PreparedDataset(found).record
    assert record.source_url == source.as_uri()
    assert record.source_bytes == source.stat().st_size
    assert len(record.source_sha256) == 64
    assert found.parent.name == f"{archive.split('.')[0]}_16"


def test_an_archive_made_by_the_system_gives_the_bytes_of_its_tree(tree, tmp_path):
    shutil.make_archive(str(tmp_path / "made"), "zip", tree)
    expected = content_of(prepared(tmp_path / "data", tree))
    assert content_of(prepared(tmp_path / "data", tmp_path / "made.zip")) == expected
    # a name that is no text, which zip cannot hold
    (tree / "bird_1.png").rename(tree / os.fsdecode(b"caf\xe9_1.png"))
    with tarfile.open(tmp_path / "odd.tar", "w") as archive:
        archive.add(tree, arcname=".")
    expected = content_of(prepared(tmp_path / "data", tree, name="odd_tree"))
    assert "caf\\udce9" in expected["class_names"]
    assert content_of(prepared(tmp_path / "data", tmp_path / "odd.tar")) == expected


def test_classes_by_directory_are_those_of_the_tree(tree, tmp_path):
    for loose in ("bird_1.png", "größe_1.png", "a_1.png"):
        (tree / loose).unlink()
    expected = content_of(prepared(tmp_path / "data", tree, labels="directories"))
    assert expected["class_names"] == ("b", "b-", "b.d")
    source = write_tar(tmp_path / "x.tar", {f"./{name}": data for name, data in members_of(tree).items()})
    assert content_of(prepared(tmp_path / "data", source, labels="directories")) == expected


@pytest.mark.parametrize("archive", WRITERS)
def test_an_archive_made_on_a_mac_gives_the_bytes_of_its_tree(archive, tree, tmp_path):
    expected = content_of(prepared(tmp_path / "data", tree))
    notes = {f"__MACOSX/photos/._{name.rpartition('/')[2]}": b"\0\5\x16\7" for name in NAMES[:3]}
    members = members_of(tree) | notes | {"b/._cat_1.png": b"\0\5\x16\7"}
    source = WRITERS[archive](tmp_path / archive, members)
    result = prepare_folder(FolderRequest(home=tmp_path / "data", source=source, size=16))
    assert content_of(result.splits[0].path) == expected
    assert result.passed_over == 4


@pytest.mark.parametrize("archive", WRITERS)
def test_names_are_cleaned_and_of_equal_ones_the_last_counts(archive, tmp_path):
    members = {"./a//b/x_1.png": png(0), "a/./b/x_1.png": png(9), "A/b/x_1.png": png(50)}
    source = WRITERS[archive](tmp_path / archive, members)
    with open_archive(source, scratch=tmp_path) as opened:
        assert opened.sizes_bytes == {"a/b/x_1.png": len(png(9)), "A/b/x_1.png": len(png(50))}
        assert opened.read("a/b/x_1.png") == png(9)
        # as on a file system that tells them apart: nothing is unpacked, so neither can replace the other
        assert opened.read("A/b/x_1.png") == png(50)


def test_contents_can_be_read_by_many_threads(tmp_path):
    members = {f"x_{number}.png": bytes([number]) * 100_000 for number in range(40)}
    for source in (
        write_tar(tmp_path / "x.tar.gz", members, mode="w:gz"),
        write_zip(tmp_path / "x.zip", members),
    ):
        wrong = []

        def read_all(order, archive, wrong=wrong):
            wrong.extend(name for name in order if archive.read(name) != members[name])

        with open_archive(source, scratch=tmp_path) as archive:
            orders = [random.Random(seed).sample(sorted(members), 40) for seed in range(4)]
            threads = [threading.Thread(target=read_all, args=(order, archive)) for order in orders]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert wrong == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar.gz", "x.zip"]


class Pipe(io.RawIOBase):
    """Takes a zip whose writer cannot go back: sizes and checksums come behind the contents."""

    def __init__(self):
        self.content = b""

    def writable(self):
        return True

    def write(self, content):
        self.content += bytes(content)
        return len(content)


def zipped(change) -> bytes:
    """A zip of two members, of which one lies in a directory, with a change to how it is written."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        change(archive)
        archive.writestr(zipfile.ZipInfo("b/"), b"")
        archive.writestr("b/dog_1.png", png(1))
        archive.writestr("cat_1.png", png(2), zipfile.ZIP_STORED)
    return file.getvalue()


def piped(archive_bytes: bytes) -> bytes:
    pipe = Pipe()
    with (
        zipfile.ZipFile(io.BytesIO(archive_bytes)) as source,
        zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    return pipe.content


def with_large_numbers(archive):
    for name, content in (("large_1.png", png(3)), ("größe_1.png", png(4))):
        with archive.open(name, "w", force_zip64=True) as member:
            member.write(content)


def with_extra_field(archive):
    info = zipfile.ZipInfo("extra_1.png")
    info.extra = b"UT\x05\x00\x03\x00\x00\x00\x00"
    archive.writestr(info, png(5))


ZIPS = {
    "plain": zipped(lambda _: None),
    "a comment": zipped(lambda archive: setattr(archive, "comment", b"PK" * 3000)),
    "large numbers": zipped(with_large_numbers),
    "an extra field": zipped(with_extra_field),
    "no names in Unicode": zipped(lambda archive: archive.writestr("ab_1.png", png(6))).replace(
        b"ab_", b"\x81\x9a_"
    ),
    "written to a pipe": piped(zipped(with_large_numbers)),
    "behind another": zipped(with_extra_field) + zipped(with_large_numbers),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_a_zip_holds_what_python_finds_in_it(kind, tmp_path):
    (tmp_path / "x.zip").write_bytes(ZIPS[kind])
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        expected = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    assert listing(tmp_path / "x.zip", tmp_path) == expected
    assert len(expected) >= 2


def test_names_in_unicode_beside_those_of_an_old_system(tmp_path):
    """As Info-ZIP writes them; zipfile knows them only in later versions of Python."""
    info = zipfile.ZipInfo("gr__e_1.png")
    told = b"\x01" + zlib.crc32(b"gr__e_1.png").to_bytes(4, "little") + "größe_1.png".encode()
    info.extra = b"up" + len(told).to_bytes(2, "little") + told
    stale = zipfile.ZipInfo("renamed_1.png")
    stale.extra = info.extra
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, png(1))
        archive.writestr(stale, png(2))
    assert list(listing(tmp_path / "x.zip", tmp_path)) == ["größe_1.png", "renamed_1.png"]


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """More tiny members than the first format of zip could count, in the layout of EDM."""
    names = [f"{number // 1000:05d}/img{number:08d}.png" for number in range(65_540)]
    labels = json.dumps({"labels": [[name, number % 10] for number, name in enumerate(names)]}).encode()
    members = dict.fromkeys(names, b"") | {"dataset.json": labels}
    return write_zip(tmp_path_factory.mktemp("many") / "x.zip", members, method=zipfile.ZIP_STORED)


def test_a_zip_may_hold_more_members_than_its_first_format_could_count(many, tmp_path):
    with open_archive(many, scratch=tmp_path) as archive:
        names = list(archive.sizes_bytes)
    assert len(names) == 65_541
    assert names[65_539:] == ["00065/img00065539.png", "dataset.json"]


LISTING = r"""
import re, sys; from pathlib import Path
from diffcli.data.sources.folder import list_images
from diffcli.data.sources.image_files import open_images
def peak_bytes():
    # ru_maxrss would count what the starting process took
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
before = peak_bytes()
with open_images(Path(sys.argv[1]), scratch=Path(sys.argv[2])) as tree:
    folder = list_images(tree, "filename")
    assert folder.label_source == "dataset.json"
    print((peak_bytes() - before) // len(folder.files))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_listed_zip_takes_little_memory(many, tmp_path):
    """So that a million images with classes take less than a gigabyte."""
    line = [sys.executable, "-c", LISTING, str(many), str(tmp_path)]
    told = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True).stdout
    assert int(told) < 800


# ---- damage ----


def listing(source: Path, scratch: Path) -> dict[str, bytes]:
    with open_archive(source, scratch=scratch) as archive:
        return {name: archive.read(name) for name in archive.sizes_bytes}


@pytest.mark.parametrize("archive", ["pax.tar", "gnu.tar", "short.tar.gz", "deflated.zip", "stored.zip"])
def test_a_cut_archive_is_never_a_smaller_one(archive, tmp_path):
    members = {f"{'long/' * 30}{number}.png": png(number) for number in range(5)}
    source = WRITERS[archive](tmp_path / archive, members)
    content = source.read_bytes()
    assert listing(source, tmp_path) == members
    refused = 0
    step = max(1, len(content) // 20)
    for kept in [*range(step, len(content), step), *range(512, len(content), 512), len(content) - 1]:
        source.write_bytes(content[:kept])
        try:
            # zeros after the end of a tar count for nothing
            assert listing(source, tmp_path) == members
        except (CorruptError, MissingError):
            refused += 1
    assert refused > 15


@pytest.mark.parametrize("archive", ["pax.tar", "gnu.tar", "deflated.zip", "stored.zip"])
def test_a_flipped_bit_never_makes_an_archive_smaller(archive, tmp_path):
    members = {f"x_{number}.png": png(number) for number in range(3)}
    source = WRITERS[archive](tmp_path / archive, members)
    content = source.read_bytes()
    refused = 0
    # of a tar the end is zeros that do not count
    for place in range(0, min(len(content), 4096), 11):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        source.write_bytes(damaged)
        try:
            assert len(listing(source, tmp_path)) >= len(members)
        except (CorruptError, MissingError):
            refused += 1
    assert refused > 20


BROKEN = {
    "no archive": b"just text\n" * 100,
    "nothing": b"",
    "a magic number": b"PK\x03\x04",
    "gzip of text": gzip.compress(b"just text\n" * 100),
    "gzip of nothing": gzip.compress(b""),
    "half a gzip": gzip.compress(bytes(random.Random(0).randbytes(9000)))[:4000],
    "an empty zip": b"PK\x05\x06" + bytes(18),
    "an empty tar": bytes(10240),
    "a tar without members": b"x" * 257 + b"ustar" + bytes(1000),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_no_archive_of_images(broken, tmp_path):
    source = tmp_path / "source.tar"
    source.write_bytes(BROKEN[broken])
    with pytest.raises((CorruptError, MissingError)) as caught:
        prepare_folder(FolderRequest(home=tmp_path / "data", source=source, size=16))
    assert "source.tar" in caught.value.what
    assert caught.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["source.tar"]


def header_of(size: int, *, name: str = "x_1.png", kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


CLAIMS = {
    "longer than the archive": header_of(10**12),
    "of negative length": header_of(-(2**20)),
    "a name of gigabytes": header_of(2**40, kind=tarfile.GNUTYPE_LONGNAME),
    "a name of negative length": header_of(-512, kind=tarfile.GNUTYPE_LONGNAME),
    "an extended header of gigabytes": header_of(2**40, kind=tarfile.XHDTYPE),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("claim", CLAIMS)
def test_headers_that_lie_about_lengths_are_refused(claim, tmp_path):
    source = tmp_path / "lies.tar"
    whole = write_tar(tmp_path / "whole.tar", {"a_1.png": png(1)}).read_bytes()
    source.write_bytes(whole[:1024] + CLAIMS[claim] + whole[1024:])
    with pytest.raises(CorruptError, match=r"lies\.tar"):
        listing(source, tmp_path)


def test_an_encrypted_zip_says_so(tmp_path):
    source = write_zip(tmp_path / "x.zip", {"x_1.png": png(1)}, method=zipfile.ZIP_STORED)
    content = bytearray(source.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    source.write_bytes(content)
    with pytest.raises(CorruptError) as caught:
        listing(source, tmp_path)
    assert "x_1.png is encrypted" in caught.value.where


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_compressions_are_refused(method, tmp_path):
    source = write_zip(tmp_path / "x.zip", {"x_1.png": png(1)}, method=method)
    with pytest.raises(CorruptError) as caught:
        listing(source, tmp_path)
    assert "neither stored nor deflated" in caught.value.where


WRONG_MEMBERS = {
    # where in the directory, what is there instead, and what is said of it
    "longer than it says": (24, (10).to_bytes(4, "little"), "cut, or its checksum is another"),
    "shorter than it says": (24, (900).to_bytes(4, "little"), "cut, or its checksum is another"),
    "another checksum": (16, bytes(4), "cut, or its checksum is another"),
    "outside": (42, (10**6).to_bytes(4, "little"), "cut"),
    "inside of another": (42, (7).to_bytes(4, "little"), "not where the directory says"),
    "into the directory": (20, (300).to_bytes(4, "little"), "longer than the archive"),
    "a size that is not there": (24, b"\xff" * 4, ""),
    "a name with a zero": (46, b"\0", ""),
}


@pytest.mark.parametrize("wrong", WRONG_MEMBERS)
def test_a_member_that_is_not_as_the_directory_says_is_refused(wrong, tmp_path):
    source = write_zip(tmp_path / "x.zip", {"x_1.png": bytes(100), "y.png": b""}, method=zipfile.ZIP_STORED)
    place, bytes_there, words = WRONG_MEMBERS[wrong]
    content = bytearray(source.read_bytes())
    place += content.index(b"PK\x01\x02")
    content[place : place + len(bytes_there)] = bytes_there
    source.write_bytes(content)
    with pytest.raises(CorruptError) as caught:
        listing(source, tmp_path)
    assert words in str(caught.value)


def test_bad_images_in_an_archive_are_listed_by_path(tmp_path):
    members = {"good_1.png": png(1), "b/cut_1.png": png(2)[:40], "empty_1.gif": b"", "text_1.jpg": b"text"}
    source = write_zip(tmp_path / "x.zip", members)
    with pytest.raises(CorruptError, match="3 of 4 images") as caught:
        prepared(tmp_path / "data", source)
    assert [line.split(": ")[0] for line in caught.value.where.splitlines()] == [
        "b/cut_1.png",
        "empty_1.gif",
        "text_1.jpg",
    ]
    assert not (tmp_path / "data").exists()


# ---- limits ----

LIMITS = {
    "members": (Limits(members=3), "more than 3 members"),
    "one member": (Limits(member_bytes=2**20), "big.bin has 2 MiB, at most 1 are read"),
    "all of them": (Limits(total_bytes=2**20), "TiB when unpacked"),
    "ratio": (Limits(ratio=2, free_bytes=0), "more than 2 times its size"),
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("archive", ["short.tar.gz", "deflated.zip"])
def test_an_archive_over_a_limit_is_refused(archive, limit, tmp_path):
    limits, words = LIMITS[limit]
    members = {f"x_{number}.png": png(number) for number in range(4)}
    source = WRITERS[archive](tmp_path / archive, members | {"big.bin": bytes(2**21)})
    with pytest.raises(CorruptError) as caught, open_archive(source, scratch=tmp_path, limits=limits):
        pytest.fail("opened")
    assert words in caught.value.where
    assert "unpack it yourself" in caught.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == [archive]
    assert len(listing(source, tmp_path)) == 5


# ---- places ----


def test_names_of_datasets_made_from_archives(tmp_path):
    for file, name in [
        ("cats.tar", "cats_8"),
        ("cats.tar.gz", "cats_8"),
        ("my cats.TGZ", "my_cats_8"),
        ("v1.2.zip", "v1.2_8"),
        (".zip", "images_8"),
    ]:
        assert default_name(tmp_path / file, 8) == name
    (tmp_path / "folder.zip").mkdir()
    assert default_name(tmp_path / "folder.zip", 8) == "folder.zip_8"


def test_an_archive_is_no_folder_to_train_on(tmp_path):
    source = write_zip(tmp_path / "x.zip", {"x_1.png": png(1)})
    with pytest.raises(UsageError, match="is a file"):
        open_dataset(DataConfig(), home=tmp_path, directory=source)


def test_pipes_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(MissingError, match="neither a directory nor a file"):
        prepared(tmp_path / "data", tmp_path / "pipe.tar")


def test_prepared_pixels_are_the_images(tmp_path):
    source = write_tar(tmp_path / "x.tar", {"x_1.png": png(40), "x_0.png": png(80)})
    dataset = PreparedDataset(prepared(tmp_path / "data", source))
    assert dataset.read(np.arange(2))[:, 8, 8].tolist() == [[80, 175, 0], [40, 215, 0]]
