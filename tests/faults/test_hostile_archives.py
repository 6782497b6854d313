"""Trials 24 and 25: archives that would unpack outside of their target, or to more than there is room for."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aftermath import CORRUPT, USAGE, assert_ended, assert_sound, peak_memory_bytes
from diffcli.data.prepared import PreparedDataset
from runs_in_processes import Bench, fork

PREPARE = ("prepare", "folder", "--size", "8", "--name", "made", "--source")


@pytest.fixture
def place(tmp_path) -> Bench:
    """An empty directory to prepare datasets in."""
    (tmp_path / "bench").mkdir()
    return Bench(directory=tmp_path / "bench")


def everything_in(directory: Path) -> set[str]:
    """All names but the outputs of processes."""
    names = {str(path.relative_to(directory)) for path in directory.rglob("*")}
    return {name for name in names if "process-" not in name}


def png(shade: int, size: tuple[int, int] = (16, 16)) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, shade).save(file, format="PNG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def write_zip(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with zipfile.ZipFile(path, mode, zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_tar_gz(path: Path, members: dict[str, bytes]) -> Path:
    return write_tar(path, members, "w:gz")


WRITERS = {"x.tar": write_tar, "x.tar.gz": write_tar_gz, "x.zip": write_zip}
OUTSIDE = ("../evil_1.png", "a/../../evil_1.png", "a/..", "/evil_1.png", "//evil_1.png", "./../evil_1.png")


TRIED = [("x.tar", OUTSIDE), ("x.tar.gz", OUTSIDE[:1]), ("x.zip", OUTSIDE[:2])]


@pytest.mark.parametrize(("archive", "names"), TRIED)
def test_names_that_lead_outside_are_refused(archive, names, place):
    for name in names:
        source = WRITERS[archive](place.directory / archive, {"good_1.png": png(1), name: png(2)})
        before = everything_in(place.directory.parent)
        assert_ended(fork(place, *PREPARE, str(source)), CORRUPT, archive, "outside", name)
        assert everything_in(place.directory.parent) == before
        source.unlink()
    assert_sound(place)


def test_an_absolute_name_of_a_place_that_exists_is_refused(place):
    target = place.directory.parent / "target_1.png"
    target.write_bytes(b"as it was")
    source = write_tar(place.directory / "x.tar", {str(target): png(2)})
    assert_ended(fork(place, *PREPARE, str(source)), CORRUPT, "outside")
    assert target.read_bytes() == b"as it was"


def test_one_source_is_needed_and_no_more(place):
    write_tar(place.directory / "x.tar", {"a_1.png": png(1)})
    for sources in ((), ("x.tar", "--source", "x.tar")):
        refused = fork(place, "prepare", "folder", "--size", "8", *sources)
        assert_ended(refused, USAGE, "give one source of images", "--source FILE")
    assert_ended(fork(place, "prepare", "folder", "x.tar", "--size", "8"), 0, "1 images")
    assert_sound(place)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    header.devmajor, header.devminor = 1, 3
    return header


def test_links_and_devices_are_passed_over_and_counted(place):
    secret = place.directory.parent / "secret_1.png"
    secret.write_bytes(png(9))
    outside = place.directory.parent / "outside"
    outside.mkdir()
    source = write_tar(place.directory / "x.tar", {"a_1.png": png(1)})
    with tarfile.open(source, "a") as archive:
        archive.addfile(special("b_1.png", tarfile.SYMTYPE, str(secret)))
        archive.addfile(special("c_1.png", tarfile.LNKTYPE, str(secret)))
        archive.addfile(special("d_1.png", tarfile.CHRTYPE))
        archive.addfile(special("e_1.png", tarfile.BLKTYPE))
        archive.addfile(special("f_1.png", tarfile.FIFOTYPE))
        archive.addfile(special("way", tarfile.SYMTYPE, str(outside)))
    write_tar(source, {"way/g_1.png": png(3)}, "a")
    made = fork(place, *PREPARE, str(source))
    assert_ended(made, 0, "2 images", "6 members of the source are links, devices")
    dataset = PreparedDataset(place.directory / "data" / "made" / "train")
    assert dataset.class_names == ("a", "g")
    assert list(outside.iterdir()) == []
    assert_sound(place)


def test_links_in_a_zip_are_passed_over_and_counted(place):
    secret = place.directory.parent / "secret_1.png"
    secret.write_bytes(png(9))
    source = write_zip(place.directory / "x.zip", {"a_1.png": png(1)})
    link = zipfile.ZipInfo("b_1.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr(link, str(secret))
    assert_ended(
        fork(place, *PREPARE, str(source)), 0, "1 images", "1 members of the source are links, devices"
    )
    assert_sound(place)


@pytest.mark.parametrize("archive", WRITERS)
def test_names_that_differ_only_in_case_are_two_images(archive, place):
    source = WRITERS[archive](place.directory / archive, {"Cat_1.png": png(10), "cat_1.png": png(200)})
    assert_ended(fork(place, *PREPARE, str(source)), 0, "2 images")
    dataset = PreparedDataset(place.directory / "data" / "made" / "train")
    assert dataset.class_names == ("Cat", "cat")
    assert [int(dataset.read(np.array([number])).mean()) for number in (0, 1)] == [10, 200]
    assert_sound(place)


# ---- bombs ----

BOMB_BYTES = 80 * 2**20


@pytest.mark.parametrize("archive", ["x.tar.gz", "x.zip"])
def test_a_bomb_is_refused_before_it_goes_off(archive, place):
    """Eighty megabytes of zeros in eighty kilobytes, as an image and as something beside one."""
    small = WRITERS[archive](place.directory / archive, {"a_1.png": png(1)})
    usual = peak_memory_bytes(fork(place, *PREPARE, str(small)))
    for name in ("bomb_1.png", "beside.bin"):
        source = WRITERS[archive](place.directory / archive, {"a_1.png": png(1), name: bytes(BOMB_BYTES)})
        assert source.stat().st_size < 200_000
        refused = fork(place, *PREPARE, str(source), "--force")
        assert peak_memory_bytes(refused) < usual + BOMB_BYTES / 2
        assert_ended(refused, CORRUPT, archive, "more than 200 times its size")
    assert_sound(place)


def test_a_member_that_is_too_large_is_refused_by_what_it_claims(place):
    source = write_zip(place.directory / "x.zip", {"a_1.png": png(1)})
    content = bytearray(source.read_bytes())
    # the unpacked size, in the directory at the end
    place_of_size = content.index(b"PK\x01\x02") + 24
    content[place_of_size : place_of_size + 4] = (2**31).to_bytes(4, "little")
    source.write_bytes(content)
    assert_ended(fork(place, *PREPARE, str(source)), CORRUPT, "a_1.png has 2,048 MiB, at most 256 are read")
    assert_sound(place)


def test_a_picture_of_400_megapixels_in_an_archive_is_refused(place):
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, format="PNG")
    assert len(file.getvalue()) < 60_000
    for archive, write in WRITERS.items():
        source = write(place.directory / archive, {"a_1.png": png(1), "bomb_1.png": file.getvalue()})
        refused = fork(place, *PREPARE, str(source))
        assert_ended(refused, CORRUPT, "1 of 2 images", "bomb_1.png: more than 120 megapixels")
    assert_sound(place)
