"""A signal in each long part of `prepare` that makes no images yet, or no more: it ends there and then."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from diffcli.commands.prepare import FolderRequest, prepare_folder
from diffcli.commands.prepare_cifar10 import Cifar10Request, prepare_cifar10
from diffcli.commands.prepare_imagenet import ImageNetRequest, prepare_imagenet
from diffcli.commands.prepare_imagenet64 import ImageNet64Request, prepare_imagenet64
from diffcli.commands.prepare_lsun import LsunRequest, prepare_lsun
from diffcli.errors import InterruptedRunError
from diffcli.records.datasets import PrepareListener
from published_layouts import (
    chrabaszcz_zips,
    cifar_python,
    class_map_text,
    imagenet_train,
    imagenet_train_tar,
    lsun_directory,
    lsun_records,
    lsun_zip,
    noise,
    npz,
    pixelrnn_members,
    write_tar,
    write_tree,
)

Act = Callable[[Path, PrepareListener], object]


def archive(place: Path) -> Act:
    source = write_tar(place / "x.tar.gz", pixelrnn_members("x", 9), "w:gz")
    return lambda home, told: prepare_folder(FolderRequest(home=home, source=source, size=16), told)


def directory(place: Path) -> Act:
    source = write_tree(place / "x", pixelrnn_members("x", 9))
    return lambda home, told: prepare_folder(FolderRequest(home=home, source=source, size=16), told)


def arrays(place: Path) -> Act:
    source = place / "x.npz"
    source.write_bytes(npz(arr_0=noise(9, 16, 16, 3)))
    return lambda home, told: prepare_folder(FolderRequest(home=home, source=source, size=16), told)


def cifar10(place: Path) -> Act:
    source = write_tar(place / "cifar-10-python.tar.gz", cifar_python(), "w:gz")
    return lambda home, told: prepare_cifar10(
        Cifar10Request(home=home, source=source, allow_partial=True), told
    )


def imagenet(place: Path) -> Act:
    source = imagenet_train_tar(place / "train.tar", imagenet_train())
    request = {"size": 16, "train": source, "allow_partial": True}
    return lambda home, told: prepare_imagenet(ImageNetRequest(home=home, **request), told)


def pixelrnn(place: Path) -> Act:
    source = write_tar(place / "x.tar", pixelrnn_members("x", 9))
    request = {"variant": "pixelrnn", "train": [source], "allow_partial": True}
    return lambda home, told: prepare_imagenet64(ImageNet64Request(home=home, **request), told)


def chrabaszcz(place: Path) -> Act:
    *train, _ = chrabaszcz_zips(place)
    (place / "map_clsloc.txt").write_bytes(class_map_text())
    request = {"variant": "chrabaszcz", "train": train, "allow_partial": True}
    return lambda home, told: prepare_imagenet64(ImageNet64Request(home=home, **request), told)


def lsun(place: Path) -> Act:
    source = lsun_zip(place / "cat.zip", lsun_records(24))
    request = {"category": "cat", "size": 32, "train": source, "allow_partial": True}
    return lambda home, told: prepare_lsun(LsunRequest(home=home, **request), told)


@dataclass(kw_only=True)
class Interrupting:
    """Sends this process a signal as soon as a kind of work begins, or tells that some of it is done."""

    work: str
    number: signal.Signals
    once_told: bool = False
    begun: list[str] = field(default_factory=list)

    @property
    def listener(self) -> PrepareListener:
        return PrepareListener(begin=self._begin, progress=self._told)

    def _begin(self, work: str, _unit: str) -> None:
        self.begun.append(work)
        if work == self.work and not self.once_told:
            os.kill(os.getpid(), self.number)

    def _told(self, _done: int, _total: int) -> None:
        if self.begun[-1] == self.work and self.once_told:
            os.kill(os.getpid(), self.number)


def content_of(home: Path) -> dict[Path, bytes]:
    return {path.relative_to(home): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}


PHASES = [
    (archive, "reading the archive"),
    (archive, "hashing the source"),
    (directory, "listing the images"),
    (arrays, "unpacking"),
    (arrays, "hashing the source"),
    (cifar10, "reading the archive"),
    (cifar10, "hashing the source"),
    (imagenet, "listing the images"),
    (imagenet, "hashing the source"),
    (pixelrnn, "listing the images"),
    (chrabaszcz, "reading labels"),
    (chrabaszcz, "hashing the source"),
    (lsun, "unpacking"),
    (lsun, "checking the database"),
    (lsun, "looking for damaged records"),
]
# of these nobody can tell how far they are, or only of thousands
SILENT = {"listing the images", "checking the database"}


@pytest.mark.parametrize(("source", "work"), PHASES)
def test_a_signal_ends_the_work_and_costs_no_bit(source, work, tmp_path):
    act = source(tmp_path)
    act(tmp_path / "whole", PrepareListener())
    for number in (signal.SIGTERM, signal.SIGINT):
        # what tells how far it is, is cut in the middle
        interrupting = Interrupting(work=work, number=number, once_told=work not in SILENT)
        # ignored where this runs in the background of a shell
        before = signal.getsignal(number)
        with pytest.raises(InterruptedRunError, match=f"stopped while {work}") as caught:
            act(tmp_path / "stopped", interrupting.listener)
        assert caught.value.exit_code == 128 + number
        assert "the same command" in caught.value.remedy
        left = [path for path in (tmp_path / "stopped").rglob("*") if path.is_dir()]
        assert not [path for path in left if not any(path.iterdir())]
        assert signal.getsignal(number) == before
    act(tmp_path / "stopped", PrepareListener())
    assert content_of(tmp_path / "stopped") == content_of(tmp_path / "whole")


@pytest.mark.parametrize("work", ["hashing the source", "verifying"])
@pytest.mark.parametrize("source", [cifar10, imagenet, pixelrnn, chrabaszcz, lsun])
def test_a_signal_while_what_is_there_is_looked_at(source, work, tmp_path):
    act = source(tmp_path)
    act(tmp_path / "home", PrepareListener())
    before = content_of(tmp_path / "home")
    with pytest.raises(InterruptedRunError, match=f"stopped while {work}"):
        act(tmp_path / "home", Interrupting(work=work, number=signal.SIGTERM, once_told=True).listener)
    assert content_of(tmp_path / "home") == before
    assert all(split.already_there for split in act(tmp_path / "home", PrepareListener()).splits)


@pytest.mark.parametrize("work", ["checking the database", "looking for damaged records", "preparing"])
def test_what_is_unpacked_stays_for_the_next_time(work, tmp_path):
    act = lsun(tmp_path)
    with pytest.raises(InterruptedRunError):
        act(tmp_path / "home", Interrupting(work=work, number=signal.SIGTERM).listener)
    (kept,) = (tmp_path / "home" / ".unpacked").iterdir()
    assert kept.stat().st_size
    told = []
    act(tmp_path / "home", PrepareListener(notice=told.append))
    assert not [text for text in told if text.startswith("unpacking")]
    assert not (tmp_path / "home" / ".unpacked").exists()


def test_a_database_that_takes_long_to_check_does_not_hold_up_a_signal(tmp_path):
    """The check is a library's, and tells nothing while it runs."""
    content = np.random.default_rng(0).bytes(300)
    source = lsun_directory(tmp_path / "x", {b"%040d" % number: content for number in range(150_000)})
    sent_at = []

    def send() -> None:
        sent_at.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(0.05, send)

    def begin(work: str, _unit: str) -> None:
        if work == "checking the database":
            timer.start()

    try:
        with pytest.raises(InterruptedRunError, match="stopped while checking the database"):
            prepare_lsun(
                LsunRequest(home=tmp_path / "home", category="cat", size=32, train=source),
                PrepareListener(begin=begin),
            )
    finally:
        # nobody would listen to it any more
        timer.cancel()
    assert time.monotonic() - sent_at[0] < 1
    assert not (tmp_path / "home").exists()
