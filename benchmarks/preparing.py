"""Memory and time of `diffcli prepare`: `python benchmarks/preparing.py [--scale 1] [--out FILE]`.

Archives in the layouts of ImageNet and LSUN are made with as many images as the published ones, but with
tiny images, because what grows in a preparation grows with the number of images and not with their size.
What belongs to large images is shown by a few of twelve megapixels. Each preparation is a process of its
own, and Linux says what it holds.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import PIL
from PIL import Image
from surroundings import commit, machine

_CLASSES = 1000
_IMAGENET_IMAGES = 1_281_167
_LSUN_RECORDS = 3_033_042
_RECORDS_AT_ONCE = 50_000
_LARGE_PIXELS = (4000, 3000)
_KIBIBYTE = 1024
_SECONDS_BETWEEN_LOOKS = 0.02


@dataclass(frozen=True, kw_only=True)
class Case:
    """A preparation: of what, how many images, and the arguments of `diffcli prepare`."""

    what: str
    images: int
    arguments: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of the process of a preparation.

    own_bytes: the most memory of its own; whole_bytes: with pages of files, which it gives back when others
    need them.
    """

    seconds: float
    own_bytes: int
    whole_bytes: int


def main() -> None:
    """Make the archives in a temporary directory, prepare them, print the table."""
    options = parsed()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        rows = [(case, measured(case)) for case in cases(Path(directory), options.scale)]
    text = report(rows)
    print(text, end="")
    if options.out:
        options.out.write_text(text)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the published number of images")
    parser.add_argument(
        "--directory", type=Path, default=Path(), help="where to make them, on the disk in question"
    )
    parser.add_argument("--out", type=Path, help="file for the report")
    return parser.parse_args()


def cases(directory: Path, scale: float) -> Iterator[Case]:
    """One after the other, each with what it reads made just before, and gone after it."""
    for share in (scale / 10, scale):
        count = int(_IMAGENET_IMAGES * share)
        archive = directory / "train.tar"
        tar_of_tars(archive, count)
        yield Case(
            what="imagenet, tar of tars, 8x8 JPEG",
            images=count,
            arguments=(
                *("imagenet", "--train", str(archive)),
                *small(directory),
                *unless(count == _IMAGENET_IMAGES),
            ),
        )
        archive.unlink()
    for share in (scale / 10, scale):
        count = int(_LSUN_RECORDS * share)
        database = directory / "database"
        lmdb_of(database, count)
        yield Case(
            what="lsun bedroom, LMDB, 8x8 WebP",
            images=count,
            arguments=(
                *("lsun", "--category", "bedroom", "--train", str(database)),
                *small(directory),
                *unless(count == _LSUN_RECORDS),
            ),
        )
        shutil.rmtree(database)
    for count in (50, 200):
        archive = directory / "large.tar"
        tar_of_photographs(archive, count)
        yield Case(
            what=f"folder, tar, {_LARGE_PIXELS[0]}x{_LARGE_PIXELS[1]} JPEG",
            images=count,
            arguments=("folder", "--source", str(archive), "--size", "256", "--data-home", fresh(directory)),
        )
        archive.unlink()


def small(directory: Path) -> tuple[str, ...]:
    """Options for tiny images in shards."""
    return "--size", "8", "--format", "shards", "--data-home", fresh(directory)


def unless(published: bool) -> tuple[str, ...]:
    """What another count than the published one needs; LSUN is then decoded twice."""
    return () if published else ("--allow-partial",)


def fresh(directory: Path) -> str:
    """A data home without anything in it."""
    shutil.rmtree(directory / "data", ignore_errors=True)
    return str(directory / "data")


# ---- what is prepared ----


def tiny(number: int, kind: str) -> bytes:
    """A file of an 8x8 image."""
    pixels = np.full((8, 8, 3), number % 256, dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def tar_of_tars(path: Path, count: int) -> None:
    """A tar for each class, inside of one."""
    kinds = [tiny(number, "JPEG") for number in range(256)]
    with tarfile.open(path, "w") as outer:
        for group in range(_CLASSES):
            wordnet_id = f"n{group:08d}"
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for number in range(group, count, _CLASSES):
                    add(archive, f"{wordnet_id}_{number}.JPEG", kinds[number % 256])
            add(outer, f"{wordnet_id}.tar", inner.getvalue())


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def lmdb_of(path: Path, count: int) -> None:
    """Records under keys of forty digits."""
    import lmdb

    kinds = [tiny(number, "WEBP") for number in range(256)]
    with lmdb.open(str(path), map_size=2**36, sync=False) as environment:
        for first in range(0, count, _RECORDS_AT_ONCE):
            with environment.begin(write=True) as transaction:
                for number in range(first, min(first + _RECORDS_AT_ONCE, count)):
                    transaction.put(f"{number:040x}".encode(), kinds[number % 256], append=True)


def tar_of_photographs(path: Path, count: int) -> None:
    """The same large image under many names."""
    random = np.random.default_rng(0)
    width, height = _LARGE_PIXELS
    coarse = Image.fromarray(random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    content = io.BytesIO()
    coarse.resize(_LARGE_PIXELS, Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            add(archive, f"photo_{number:05d}.jpg", content.getvalue())


# ---- what it costs ----


def measured(case: Case) -> Cost:
    """Run the preparation in a process of its own, and look at its memory until it ends."""
    command = [sys.executable, "-m", "diffcli", "prepare", *case.arguments]
    started_at, own, whole = time.perf_counter(), 0, 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            own = max(own, memory_bytes(process.pid, "RssAnon"))
            whole = max(whole, memory_bytes(process.pid, "VmHWM"))
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    assert process.returncode == 0, case
    return Cost(seconds=time.perf_counter() - started_at, own_bytes=own, whole_bytes=whole)


def memory_bytes(pid: int, what: str) -> int:
    """A line of what the kernel says of a process; 0 when it has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith(what)]
    return int(found[0]) * _KIBIBYTE if found else 0


# ---- what came out ----


def report(rows: list[tuple[Case, Cost]]) -> str:
    lines = [
        f"Preparing datasets, {datetime.now(UTC).isoformat(timespec='seconds')}, commit {commit()}",
        f"{machine()}; python {platform.python_version()}, numpy {np.__version__}, pillow {PIL.__version__}",
        f"load of the machine at the end: {os.getloadavg()[0]:.1f}",
        "",
        f"{'source':40}{'images':>12}{'seconds':>10}{'images/s':>10}{'memory':>12}{'with files':>12}",
    ]
    lines += [
        f"{case.what:40}{case.images:12,}{cost.seconds:10.1f}{case.images / cost.seconds:10,.0f}"
        f"{cost.own_bytes / 1e6:9,.0f} MB{cost.whole_bytes / 1e6:9,.0f} MB"
        for case, cost in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
