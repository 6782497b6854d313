"""`sample --then`: bitwise the commands one after the other, whatever comes between them."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from diffcli.sampling.noise import enlarging_seed, initial_noise
from latent_runs import (
    NAMES,
    ONE_PROCESS,
    changed,
    drawing,
    drawn,
    enlarging,
    make_runs,
    read_archive,
    result_of,
    sampling,
)
from runs_in_processes import Bench, fork, fork_ranks

RUNS = {
    "small": (drawing(4), NAMES),
    "enlarge": (enlarging(4, 8), NAMES),
    "again": (enlarging(8, 16, classes=0), NAMES),
    "classless": (drawing(4, classes=0), NAMES),
    "few": (drawing(4, classes=7), NAMES[:7]),
    "renamed": (enlarging(4, 8), NAMES[::-1]),
    "nameless": (enlarging(4, 8), ()),
    "coloured": (changed(enlarging(4, 8), data={"channels": 3}), NAMES),
}
BASE = ("small", "--num", "6", "--seed", "5", "--batch-size", "4", "--ddim", "3", "--class", "7,2,9")


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    return make_runs(tmp_path_factory.mktemp("cascade"), RUNS)


def stages_of(bench, result):
    return [read_archive(bench.directory / stage["directory"]) for stage in result["stages"]]


def same_files(one, other):
    (first,), (second,) = one.directory.glob("*.npz"), other.directory.glob("*.npz")
    return first.read_bytes() == second.read_bytes()


def test_it_is_bitwise_the_commands_one_after_the_other(bench):
    result = result_of(bench, *BASE, "--then", "enlarge", "--then", "again", "--name", "chained")
    assert [stage["run"] for stage in result["stages"]] == ["run-1", "run-2", "run-3"]
    chained = stages_of(bench, result)
    # --force, or the images would be taken from what is there
    base = drawn(bench, *BASE, "--name", "first", "--force")
    # --num is as many as there are
    seed = ("--seed", "5", "--force")
    second = drawn(bench, "enlarge", "--low-res", str(base.directory), *seed, "--name", "second")
    third = drawn(bench, "again", "--low-res", str(second.directory), *seed, "--name", "third")
    for one, other in zip(chained, [base, second, third], strict=True):
        assert same_files(one, other)
        assert one.record["fingerprint"] == other.record["fingerprint"]
    assert [archive.images.shape for archive in chained] == [(6, 4, 4, 1), (6, 8, 8, 1), (6, 16, 16, 1)]
    # the last network knows no classes, and the images keep theirs
    assert all(archive.labels.tolist() == [7, 2, 9] * 2 for archive in chained)


def test_each_stage_says_from_which_archive_it_comes(bench):
    first, second = stages_of(bench, result_of(bench, *BASE, "--then", "enlarge", "--name", "told"))
    origin = second.record["low_res_origin"]
    assert origin["fingerprint"] == first.record["fingerprint"]
    assert origin["path"] == str(next(first.directory.glob("*.npz")))
    assert (origin["kind"], origin["resized"]) == ("archive", 0)
    assert first.record["low_res_origin"] is None
    # the digest is of the content: of an archive with the same images elsewhere it is the same
    np.savez(bench.directory / "copy.npz", arr_0=first.images, arr_1=first.labels)
    copied = drawn(bench, "enlarge", "--low-res", "copy.npz", "--seed", "5", "--name", "copied")
    assert copied.record["low_res_sha256"] == second.record["low_res_sha256"]
    assert copied.record["fingerprint"] == second.record["fingerprint"]


def test_what_enlarges_has_noise_of_its_own(bench):
    first, second = stages_of(bench, result_of(bench, *BASE, "--then", "enlarge", "--name", "noisy"))
    seed = enlarging_seed(5, 4)
    noise = initial_noise(seed, torch.arange(6), (1, 8, 8)).numpy()
    np.save(bench.directory / "own.npy", noise)
    given = ("--low-res", str(first.directory), "--noise", "own.npy")
    assert np.array_equal(drawn(bench, "enlarge", *given).images, second.images)
    # nothing of what the small images were drawn from
    small = initial_noise(5, torch.arange(6), (1, 4, 4)).flatten().tolist()
    assert not set(small) & set(noise.flatten().tolist())
    # and another size has other noise
    assert enlarging_seed(5, 8) != seed


def test_the_second_stage_has_its_own_settings_or_those_of_then(bench):
    def second(*options):
        return stages_of(bench, result_of(bench, *BASE, "--then", "enlarge", *options))[1].record

    own = second()
    assert (own["solver"], own["steps"], own["batch_size"], own["classes"]) == ("ddim", 4, 64, None)
    changed_ones = second("--then-ddim", "2", "--then-batch-size", "3")
    assert (changed_ones["steps"], changed_ones["batch_size"]) == (2, 3)
    ancestral = second("--then-steps", "5")
    assert (ancestral["solver"], ancestral["steps"], ancestral["seed"]) == ("ancestral", 5, 5)
    assert second("--then", "again@1")["checkpoint"] == 1


def test_the_same_again_draws_nothing_and_out_takes_all_stages(bench):
    line = (*BASE, "--then", "enlarge", "--out", "elsewhere")
    result = result_of(bench, *line)
    assert [stage["already_there"] for stage in result["stages"]] == [False, False]
    place = bench.directory / "elsewhere"
    assert [stage["directory"] for stage in result["stages"]] == [
        str(place / "stage-1"),
        str(place / "stage-2"),
    ]
    assert [stage["already_there"] for stage in result_of(bench, *line)["stages"]] == [True, True]


@dataclass(frozen=True, kw_only=True)
class SignalInStage:
    """A process signals itself as it tells of this much work of a stage, counted from 1."""

    stage: int
    done: int

    def arm(self) -> None:
        """Lay the trap."""
        import os
        import time

        from diffcli.console.progress import WorkProgress

        begin, show = WorkProgress.begin, WorkProgress.__call__
        begun, sent = [], []

        def began(progress, verb):
            begun.append(verb)
            begin(progress, verb)

        def shown(progress, done, total):
            show(progress, done, total)
            if len(begun) == self.stage and done >= self.done and not sent:
                sent.append(os.kill(os.getpid(), signal.SIGTERM))
                # until the thread that listens has seen it
                time.sleep(0.2)

        WorkProgress.begin, WorkProgress.__call__ = began, shown


@pytest.mark.parametrize("stage", [1, 2])
def test_a_stop_in_either_stage_keeps_what_is_done_and_the_same_command_goes_on(stage, bench):
    name = f"stopped-{stage}"
    # a seed of its own: nothing is taken from what other tests have drawn
    own = ("--then-batch-size", "4", "--seed", f"{10 + stage}")
    line = (*BASE, "--then", "enlarge", *own, "--name", name)
    stopped = sampling(bench, *line, moment=SignalInStage(stage=stage, done=5))
    assert stopped.exit_code() == 143, stopped.errors
    assert "stopped with 1 of 2 batches done" in stopped.errors
    assert "the same command goes on from there" in stopped.errors
    samples = [bench.run(1) / "samples", bench.run(2) / "samples"]
    assert (samples[0] / name).exists() == (stage == 2)
    assert not (samples[1] / name).exists()
    assert [path.name for path in (samples[stage - 1] / f".{name}.parts").glob("*.bin")] == [
        "batch-000000.bin"
    ]
    result = result_of(bench, *line)
    assert [one["already_there"] for one in result["stages"]] == [stage == 2, False]
    whole = stages_of(bench, result_of(bench, *line[:-1], f"whole-{stage}", "--force"))
    assert all(same_files(*pair) for pair in zip(stages_of(bench, result), whole, strict=True))
    assert not list(samples[0].glob(".*")) + list(samples[1].glob(".*"))


def test_two_ranks_draw_the_same_bits(bench):
    line = (*BASE, "--then", "enlarge", "--then-batch-size", "4", "--force")
    whole = stages_of(bench, result_of(bench, *line, "--name", "alone"))
    ranks = fork_ranks(bench, 2, "sample", *line, *ONE_PROCESS, "--name", "ranks", "--json")
    for rank in ranks:
        rank.succeeds()
    assert [bool(rank.output) for rank in ranks] == [True, False]
    both = stages_of(bench, json.loads(ranks[0].output))
    assert [archive.record["world_size"] for archive in both] == [2, 2]
    assert all(same_files(*pair) for pair in zip(both, whole, strict=True))


REFUSALS = [
    (("small", "--then", "classless"), "run-4 enlarges nothing"),
    (("small", "--then", "again"), "run-1 draws 4x4x1, and run-3 enlarges 8x8x1"),
    (("small", "--then", "coloured"), "run-8 enlarges 4x4x3"),
    (("classless", "--then", "enlarge"), "one of 10 classes, and run-4 draws none"),
    (("few", "--then", "enlarge"), "run-5 draws 7 of its own"),
    (("small", "--then", "renamed"), "the classes of run-1 are not those of run-6"),
    (("small", "--then", "enlarge", "--then", "enlarge"), "run-2 draws 8x8x1, and run-2 enlarges 4x4x1"),
    (("small", "--then", "enlarge", "--then-ddim", "41"), "at most diffusion.steps = 40"),
]


@pytest.mark.parametrize(("line", "words"), REFUSALS, ids=[" ".join(line) for line, _ in REFUSALS])
def test_runs_that_do_not_fit_are_refused_before_anything_is_drawn(line, words, bench):
    refused = sampling(bench, *line, "--name", "never")
    assert refused.exit_code() == 2, refused.errors
    assert words in refused.errors
    assert not list(bench.runs.glob("run-*/samples/*never*"))


@pytest.mark.parametrize("then", ["enlarge@7", "nowhere"])
def test_a_missing_run_or_checkpoint_is_told_before_anything_is_drawn(then, bench):
    missing = sampling(bench, "small", "--then", then, "--name", "never")
    assert missing.exit_code() == 3, missing.errors
    assert not list(bench.runs.glob("run-*/samples/*never*"))


def test_names_count_only_where_both_runs_have_them(bench):
    assert len(stages_of(bench, result_of(bench, *BASE, "--then", "nameless"))) == 2


def test_without_json_each_stage_is_told(bench):
    line = ("sample", *BASE, "--then", "enlarge", *ONE_PROCESS)
    told = fork(bench, *line, "--name", "plain", "--force").succeeds()
    rows = [line.split("\t") for line in told.output.splitlines()]
    assert [row[0] for row in rows] == ["archive", "grid", "record"] * 2
    assert rows[0][1] == "runs/run-1/samples/plain/samples_6x4x4x1.npz"
    assert rows[3][1] == "runs/run-2/samples/plain/samples_6x8x8x1.npz"
    assert "6 images by run-1, drawn in" in told.errors
    assert "next: diffcli runs show run-2" in told.errors
    again = fork(bench, *line, "--name", "taken").succeeds()
    assert "6 of 6 images are taken from runs/run-2/samples/" in again.errors
    assert "6 images by run-2, none of them drawn anew" in again.errors
    more = fork(bench, *line, "--num", "9", "--name", "more").succeeds()
    assert "4 of 9 images are taken from runs/run-1/samples/" in more.errors
    assert "9 images by run-1, 5 of them drawn in" in more.errors
