"""A stopped preparation of each published layout goes on, and ends with the bytes of one that was not."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from diffcli.commands.prepare_imagenet import ImageNetRequest, prepare_imagenet
from diffcli.commands.prepare_imagenet64 import ImageNet64Request, prepare_imagenet64
from diffcli.commands.prepare_lsun import LsunRequest, prepare_lsun
from diffcli.errors import InterruptedRunError
from diffcli.records.datasets import PrepareListener
from published_layouts import (
    chrabaszcz_zips,
    class_map_text,
    imagenet_train,
    imagenet_train_tar,
    imagenet_val,
    lsun_records,
    lsun_zip,
    solution_csv,
    write_tar,
)


def imagenet(place):
    train = imagenet_train_tar(place / "train.tar", imagenet_train(each=8))
    val = write_tar(place / "val.tar", imagenet_val(8))
    (place / "LOC_val_solution.csv").write_bytes(solution_csv(["n01440764", "n02119789"] * 4))

    def act(home, listener):
        request = ImageNetRequest(home=home, size=80, train=train, val=val, allow_partial=True)
        return prepare_imagenet(request, listener)

    return act


def chrabaszcz(place):
    first, second, val = chrabaszcz_zips(place)
    (place / "map_clsloc.txt").write_bytes(class_map_text())

    def act(home, listener):
        request = ImageNet64Request(
            home=home, variant="chrabaszcz", train=[first, second], val=[val], allow_partial=True
        )
        return prepare_imagenet64(request, listener)

    return act


def lsun(place):
    source = lsun_zip(place / "cat.zip", lsun_records(24))

    def act(home, listener):
        request = LsunRequest(home=home, category="cat", size=32, train=source, allow_partial=True)
        return prepare_lsun(request, listener)

    return act


def content_of(home):
    return {path.relative_to(home): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("source", [imagenet, chrabaszcz, lsun])
def test_a_stop_costs_no_bit(source, tmp_path):
    act = source(tmp_path)
    whole = act(tmp_path / "whole", PrepareListener())
    notices = []
    # once while the first split is made and once while the second is, if there are two
    for stop_at in (7, sum(split.count for split in whole.splits) - 3):
        # the records of LSUN are all decoded once before
        passes = iter(range(10**6))
        heard = threading.Event()

        def interrupt(done, total, stop_at=stop_at, passes=passes, heard=heard):
            scanned = total if source is lsun else 0
            if next(passes) >= scanned and done == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
                assert heard.wait(30)

        listener = PrepareListener(
            progress=interrupt, notice=notices.append, on_stop=lambda _number, heard=heard: heard.set()
        )
        with pytest.raises(InterruptedRunError):
            act(tmp_path / "stopped", listener)
    result = act(tmp_path / "stopped", PrepareListener(notice=notices.append))
    assert [split.count for split in result.splits] == [split.count for split in whole.splits]
    assert any("going on after" in notice for notice in notices)
    assert content_of(tmp_path / "stopped") == content_of(tmp_path / "whole")
