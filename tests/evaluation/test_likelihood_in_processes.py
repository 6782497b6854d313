"""`eval --nll` in real processes: kills, signals and ranks change no bit of a number."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from signal import SIGINT, SIGKILL, SIGTERM

import numpy as np
import pytest

from aftermath import assert_ended
from diffcli_process import shell_environment
from latent_runs import drawing
from runs_in_processes import (
    EVALUATION_FAILPOINTS,
    Bench,
    Failpoint,
    fork,
    fork_ranks,
    leftovers,
    make_bench,
    start,
    wait_until,
)
from runs_on_disk import run_of_a_network

BATCHES = 4
LINE = ("eval", "run-1", "--nll", "--num", "10", "--batch-size", "3", "--device", "cpu", "--threads", "1")

LONG_BATCHES = 12
LONG = (*LINE[:3], "--num", "12", "--batch-size", "1", "--device", "cpu", "--threads", "1")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Bench:
    """Digits, and a run of a network that was not trained, with a chain of 40 timesteps."""
    made = make_bench(tmp_path_factory.mktemp("evaluated"))
    run_of_a_network(made.runs, drawing(8, classes=0), "plain")
    return made


@pytest.fixture(scope="module")
def whole(evaluated):
    """The record of an evaluation that nothing disturbed."""
    return result_of(fork(evaluated, *LINE, "--json", "--name", "nll-whole"))


@pytest.fixture(scope="module")
def whole_of_many(evaluated):
    """The same of more batches, which take long enough for a signal to come in between."""
    return result_of(fork(evaluated, *LONG, "--json", "--name", "nll-whole-of-many"))


def result_of(process):
    return json.loads(process.succeeds().output)


def record(bench, name):
    return json.loads((bench.run() / "evals" / f"{name}.json").read_text())


def parts_of(bench, name):
    return sorted((bench.run() / "evals" / f".{name}.parts").glob("batch-*.bin"))


def test_the_whole_is_of_one_process(whole):
    assert whole["conditions"]["world_size"] == 1
    assert whole["likelihood"]["images"] == 10
    assert not whole["already_there"]


@pytest.mark.parametrize("place", EVALUATION_FAILPOINTS)
def test_a_kill_anywhere_changes_no_bit(place, evaluated, whole):
    name = f"nll-{place.replace(' ', '-')}"
    visit = 1 if name.endswith("record") else 2
    killed = fork(evaluated, *LINE, "--name", name, moment=Failpoint(place=place, visit=visit))
    assert killed.exit_code() == -SIGKILL
    done = {"before a part": 1, "after a part": 2}.get(place, BATCHES)
    assert len(parts_of(evaluated, name)) == done
    found = result_of(fork(evaluated, *LINE, "--name", name, "--json"))
    assert found["already_there"] == (place == "after the record")
    assert found["likelihood"] == whole["likelihood"]
    assert record(evaluated, name)["likelihood"] == whole["likelihood"]
    assert leftovers(evaluated.run()) == []


def test_finished_batches_are_not_computed_again(evaluated, whole):
    killed = fork(evaluated, *LINE, "--name", "nll-kept", moment=Failpoint(place="after a part", visit=2))
    assert killed.exit_code() == -SIGKILL
    part = parts_of(evaluated, "nll-kept")[0]
    numbers = np.fromfile(part)
    # the first image's vb
    numbers[0] += 100
    part.write_bytes(numbers.tobytes())
    found = result_of(fork(evaluated, *LINE, "--name", "nll-kept", "--json"))["likelihood"]
    expected = whole["likelihood"]["image_bits_per_dim"]
    assert found["image_bits_per_dim"] == [pytest.approx(expected[0] + 100), *expected[1:]]


@pytest.mark.parametrize(("number", "code"), [(SIGINT, 130), (SIGTERM, 143)])
def test_a_signal_stops_cleanly_and_the_same_command_goes_on(number, code, evaluated, whole_of_many):
    name = f"nll-stopped-{code}"
    stopped = fork(evaluated, *LONG, "--name", name)
    wait_until(lambda: parts_of(evaluated, name), stopped)
    stopped.send(number)
    assert_ended(stopped, code, "stopping after this step", "batches done", "the same command goes on")
    assert 0 < len(parts_of(evaluated, name)) < LONG_BATCHES
    assert not (evaluated.run() / "evals" / f"{name}.json").exists()
    found = result_of(fork(evaluated, *LONG, "--name", name, "--json"))
    assert found["likelihood"] == whole_of_many["likelihood"]


def test_parts_of_another_request_are_not_taken(evaluated, whole):
    name = "nll-other"
    killed = fork(
        evaluated,
        *LINE,
        "--seed=1",
        "--name",
        name,
        moment=Failpoint(place="after a part", visit=2),
    )
    assert killed.exit_code() == -SIGKILL
    assert result_of(fork(evaluated, *LINE, "--name", name, "--json"))["likelihood"] == whole["likelihood"]


def test_two_ranks_give_the_same_numbers_and_go_on_from_one_another(evaluated, whole):
    ranks = fork_ranks(evaluated, 2, *LINE, "--name", "nll-ranks", "--json")
    first, second = [rank.succeeds() for rank in ranks]
    assert second.output == ""
    found = json.loads(first.output)
    assert found["conditions"]["world_size"] == 2
    assert found["likelihood"] == whole["likelihood"]
    assert found["fingerprint"] == whole["fingerprint"]
    # what one process has left, two finish
    killed = fork(
        evaluated, *LINE, "--name", "nll-handed-on", moment=Failpoint(place="after a part", visit=1)
    )
    assert killed.exit_code() == -SIGKILL
    ranks = fork_ranks(evaluated, 2, *LINE, "--name", "nll-handed-on", "--json")
    assert result_of(ranks[0])["likelihood"] == whole["likelihood"]
    ranks[1].succeeds()


def test_a_signal_to_one_of_two_ranks_stops_both(evaluated, whole_of_many):
    name = "nll-stopped-ranks"
    ranks = fork_ranks(evaluated, 2, *LONG, "--name", name)
    wait_until(lambda: parts_of(evaluated, name), ranks[0])
    ranks[1].send(SIGTERM)
    assert [rank.exit_code() for rank in ranks] == [143, 143]
    assert f"of {LONG_BATCHES} batches done" in ranks[0].errors
    assert ranks[1].errors == ""
    found = result_of(fork(evaluated, *LONG, "--name", name, "--json"))
    assert found["likelihood"] == whole_of_many["likelihood"]


def test_under_torchrun_the_numbers_are_the_same(evaluated):
    # all images: torchrun would take `--num` for one of its own options
    line = (*LINE[:3], "--batch-size", "100", "--chain", "4", "--device", "cpu", "--threads", "1")
    torchrun = ("-m", "torch.distributed.run", "--nproc_per_node", "2")
    launched = start(evaluated, *line, "--name", "nll-torchrun", launcher=torchrun, ACCELERATE_USE_CPU="true")
    assert launched.succeeds().output.count("bits/dim") == 1
    found = record(evaluated, "nll-torchrun")
    assert found["conditions"]["world_size"] == 2
    alone = result_of(fork(evaluated, *line, "--name", "nll-alone", "--json"))
    assert alone["conditions"]["world_size"] == 1
    assert found["likelihood"] == alone["likelihood"]


def test_somebody_who_watches_sees_the_curve(evaluated, whole):
    reader, writer = pty.openpty()
    shown = subprocess.run(
        [sys.executable, "-m", "diffcli", *LINE, "--name", whole["name"]],
        cwd=evaluated.directory,
        env=shell_environment(COLUMNS="80"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=writer,
        timeout=120,
        check=True,
    )
    os.close(writer)
    told = b""
    with contextlib.suppress(OSError):  # what a terminal says when nobody writes to it any longer
        while chunk := os.read(reader, 4096):
            told += chunk
    os.close(reader)
    lines = told.decode().splitlines()
    assert any("already evaluated" in line for line in lines)
    first = next(number for number, line in enumerate(lines) if "vb over timesteps 0 to 39" in line)
    values = whole["likelihood"]["curve"]["vb_bits_per_dim"]
    assert lines[first + 1].split()[0] == f"{max(values):.4g}"
    assert lines[first + 6].split()[0] == f"{min(values):.4g}"
    assert not any("█" in line for line in shown.stdout.decode().splitlines())
