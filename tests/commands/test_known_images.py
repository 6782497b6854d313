"""`sample` with more or fewer images than there are: those that are known are taken, and no bit differs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from diffcli.commands.sample import sample
from diffcli.registry.create import open_run
from diffcli.registry.sample_records import archives_of, holding, images_key
from diffcli.sampling.noise import initial_noise
from latent_runs import NAMES, changed, drawing, enlarging, make_runs, read_archive
from runs_in_processes import Bench
from sampling_requests import Quiet, sample_request

SHORT = {"steps": 5}
RUNS = {
    "tiny": (changed(drawing(8), sampling=SHORT), NAMES),
    "classless": (changed(drawing(8, classes=0), sampling=SHORT), NAMES),
    "enlarge": (enlarging(4, 8), NAMES),
}
SMALL = np.random.default_rng(0).integers(0, 256, (11, 4, 4, 1), dtype=np.uint8)


@pytest.fixture
def bench(tmp_path) -> Bench:
    return make_runs(tmp_path, RUNS)


class Drawn:
    """An archive that was drawn in this process, and what was told meanwhile."""

    def __init__(self, bench, count, **changes):
        self.progress = Quiet()
        self.result = sample(sample_request(bench.runs, count=count, **changes), self.progress)
        self.taken = self.result.taken
        self.file = self.result.archive.read_bytes()

    @property
    def first_told(self):
        """How many images there were before any was drawn."""
        return next(seen for seen in self.progress.seen if isinstance(seen, tuple))[0]

    @property
    def said(self):
        return [text for text in self.progress.seen if isinstance(text, str)]

    @property
    def images(self):
        return read_archive(self.result.directory).images


# ---- more and fewer ----


@pytest.mark.parametrize("few", [8, 10])
def test_more_images_are_those_there_are_and_the_rest(few, bench):
    whole = Drawn(bench, 22, name="whole", out=bench.directory / "whole")
    there = Drawn(bench, few, name="few")
    more = Drawn(bench, 22, name="more")
    # of batches of 4, whole ones only: the last one of ten images is drawn again
    assert (there.taken, more.taken, more.first_told) == (0, 8, 8)
    assert more.said == [f"8 of 22 images are taken from {there.result.directory}"]
    assert more.file == whole.file
    assert np.array_equal(more.images[:few], there.images)


@pytest.mark.parametrize("count", [3, 4, 6, 22])
def test_fewer_images_than_there_are_need_no_drawing(count, bench):
    fresh = Drawn(bench, count, out=bench.directory / "fresh")
    Drawn(bench, 22)
    few = Drawn(bench, count, name="few")
    assert (few.taken, few.first_told) == (count, count)
    assert few.file == fresh.file


def test_listed_classes_and_none_go_on_alike(bench):
    for changes in ({"classes": "7,2,9"}, {"run": "classless"}):
        whole = Drawn(
            bench, 11, out=bench.directory / f"whole-{len(changes)}-{next(iter(changes))}", **changes
        )
        Drawn(bench, 5, **changes)
        more = Drawn(bench, 11, **changes)
        assert more.taken == 4
        assert more.file == whole.file


def test_the_archive_with_the_most_of_them_is_taken(bench):
    for count in (5, 9, 13):
        Drawn(bench, count, force=True)
    more = Drawn(bench, 14, name="more")
    assert more.taken == 12
    assert "-n-13-" in more.said[0]


def test_an_archive_elsewhere_is_filled_from_those_of_the_run(bench):
    Drawn(bench, 8)
    assert Drawn(bench, 9, out=bench.directory / "elsewhere").taken == 8


OTHERS = [
    {"seed": 4},
    {"batch_size": 2},
    {"classes": "1"},
    {"ema": "none"},
    {"steps": "6"},
    {"ddim": 5},
    {"overrides": ("sampling.clip=false",)},
    {"precision": "bf16"},
    {"force": True},
]


@pytest.mark.parametrize("changes", OTHERS, ids=[next(iter(changes)) for changes in OTHERS])
def test_nothing_is_taken_from_other_images_nor_by_force(changes, bench):
    Drawn(bench, 8)
    other = Drawn(bench, 9, **changes)
    assert (other.taken, other.first_told) == (0, 0)


def test_a_damaged_archive_is_told_and_nothing_of_it_taken(bench):
    whole = Drawn(bench, 9, out=bench.directory / "whole")
    there = Drawn(bench, 8).result.archive
    content = bytearray(there.read_bytes())
    # a pixel of the last image, far behind those that were whole
    content[content.index(b"arr_1.npy") - 60] ^= 1
    there.write_bytes(content)
    more = Drawn(bench, 9)
    assert more.taken == 0
    assert any(text.startswith("warning:") and str(there) in text for text in more.said)
    assert more.file == whole.file


def test_an_archive_that_is_not_what_its_record_says_is_told(bench):
    there = Drawn(bench, 8).result.archive
    with np.load(there) as archive:
        images, labels = archive["arr_0"], archive["arr_1"]
    np.savez(there, arr_0=images, arr_1=labels[::-1])
    assert "has other classes than its record says" in Drawn(bench, 9).said[0]
    np.savez(there, arr_0=images[:7], arr_1=labels)
    assert "holds uint8 [7, 8, 8, 1]" in Drawn(bench, 8, name="again").said[0]


# ---- what an interruption has left ----


class EnoughError(Exception):
    """What ends a request in its middle."""


class Ending(Quiet):
    """A progress that ends a request after so many batches of five steps."""

    def __init__(self, batches):
        super().__init__()
        self.last = 2 + 5 * batches

    def __call__(self, done, total):
        super().__call__(done, total)
        if len(self.seen) == self.last:
            raise EnoughError


def interrupt(bench, count, *, batches, **changes):
    with pytest.raises(EnoughError):
        sample(sample_request(bench.runs, count=count, **changes), Ending(batches))


@pytest.mark.parametrize("count", [6, 15, 22])
def test_an_interrupted_request_goes_on_with_any_number(count, bench):
    whole = Drawn(bench, count, out=bench.directory / "whole")
    interrupt(bench, 22, batches=2, name="mine")
    gone_on = Drawn(bench, count, name="mine")
    assert (gone_on.taken, gone_on.first_told) == (0, min(count, 8))
    assert gone_on.file == whole.file


def test_an_incomplete_last_batch_is_drawn_anew(bench):
    whole = Drawn(bench, 22, out=bench.directory / "whole")
    interrupt(bench, 10, batches=3, name="mine")
    parts = bench.run() / "samples" / ".mine.parts"
    assert len(list(parts.glob("batch-*"))) == 3
    gone_on = Drawn(bench, 22, name="mine")
    assert gone_on.first_told == 8
    assert gone_on.file == whole.file


def test_other_requests_take_what_an_interrupted_one_has_drawn_and_leave_it_there(bench):
    whole = Drawn(bench, 15, out=bench.directory / "whole")
    interrupt(bench, 22, batches=2, name="mine")
    other = Drawn(bench, 15)
    assert other.taken == 8
    assert other.said == [f"8 of 15 images are taken from {bench.run() / 'samples' / '.mine.parts'}"]
    assert other.file == whole.file
    assert Drawn(bench, 22, name="mine", force=True).first_told == 8
    assert Drawn(bench, 15, seed=4).taken == 0


# ---- given images and noise ----


def test_small_images_of_which_the_first_are_the_same_are_enlarged_from_there_on(bench):
    few, many = bench.directory / "few.npz", bench.directory / "many.npz"
    np.savez(few, arr_0=SMALL[:6], arr_1=np.arange(6))
    np.savez(many, arr_0=SMALL, arr_1=np.arange(11) % 10)
    enlarged = {"run": "enlarge", "low_res": many}
    whole = Drawn(bench, None, out=bench.directory / "whole", **enlarged)
    Drawn(bench, None, **(enlarged | {"low_res": few}))
    more = Drawn(bench, None, **enlarged)
    assert more.taken == 4
    assert more.file == whole.file
    # nothing says that the first of more images were these
    assert Drawn(bench, 5, **enlarged).taken == 0
    for name, images, labels in [("pixels", SMALL[::-1], np.arange(11) % 10), ("labels", SMALL, [3] * 11)]:
        np.savez(many, arr_0=images, arr_1=labels)
        assert Drawn(bench, None, name=name, **enlarged).taken == 0


def test_given_noise_goes_on_with_the_same_file_only(bench):
    noise = initial_noise(9, torch.arange(11), (1, 8, 8)).numpy()
    for name in ("a.npy", "b.npy"):
        np.save(bench.directory / name, noise * (1 if name == "a.npy" else -1))
    given = {"noise": bench.directory / "a.npy", "ddim": 3}
    whole = Drawn(bench, None, out=bench.directory / "whole", **given)
    Drawn(bench, 6, **given)
    assert Drawn(bench, 7, **(given | {"noise": bench.directory / "b.npy"})).taken == 0
    more = Drawn(bench, None, **given)
    assert more.taken == 4
    assert more.file == whole.file


# ---- finding them ----


def test_finished_archives_are_found_with_what_decides_their_images(bench):
    samples = open_run(bench.runs, "tiny").paths
    assert archives_of(samples) == ()
    ten, twenty = Drawn(bench, 10, name="ten"), Drawn(bench, 20, name="twenty", ddim=3, eta=1)
    Drawn(bench, 12, name="twelve")
    interrupt(bench, 30, batches=1, name="thirty", seed=8)
    found = {archive.directory.name: archive for archive in archives_of(samples)}
    assert list(found) == ["ten", "twelve", "twenty"]
    assert [archive.count for archive in found.values()] == [10, 12, 20]
    assert found["ten"].archive == ten.result.archive
    assert found["ten"].images_key == found["twelve"].images_key != found["twenty"].images_key
    assert (found["twenty"].provenance.steps, found["twenty"].provenance.eta) == (3, 1)
    assert found["twenty"].images_key == images_key(found["twenty"].provenance)
    key = found["ten"].images_key
    wanted = [holding(found.values(), key, count=count) for count in (1, 10, 11, 12, 13)]
    assert [archive and archive.directory.name for archive in wanted] == ["ten"] * 2 + ["twelve"] * 2 + [None]
    # an edited record, and one that is none
    record = ten.result.record
    record.write_text(record.read_text().replace('"seed": 3', '"seed": 4'))
    twenty.result.record.write_text("[")
    assert [archive.directory.name for archive in archives_of(samples)] == ["twelve"]


def test_given_start_points_are_read_back(bench):
    from diffcli.commands.interpolate import InterpolateRequest, interpolate

    request = sample_request(bench.runs, run="classless", count=None, ddim=3, name="way")
    interpolate(InterpolateRequest(first="seed:1", last="2", frames=3, sampling=request), Quiet())
    (found,) = archives_of(open_run(bench.runs, "classless").paths)
    assert (found.provenance.start.first.seed, found.provenance.start.last.seed) == (1, 2)
    again = dataclasses.replace(request, name="again")
    drawn = interpolate(InterpolateRequest(first="1", last="2", frames=3, sampling=again), Quiet())
    assert drawn.samples.taken == 0
