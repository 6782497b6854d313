"""Signals to a real process that listens for them, also inside one long operation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import sys, time, torch
from diffcli.commands.interruption import StopRequests
def requested(number): print("stopping", number, flush=True)
def abandoned(reason, exit_code): print("leaving:", reason, exit_code, flush=True)
with StopRequests(on_request=requested, on_abandon=abandoned) as stop:
    stop.stop_within_seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    print("ready", flush=True)
    if sys.argv[1] == "long":
        torch.set_num_threads(1)
        torch.randn(6000, 6000).matmul(torch.randn(6000, 60000))
    while not stop.signal_number:
        time.sleep(0.01)
    if sys.argv[1] == "polite":
        # a boundary some time later
        time.sleep(0.5)
        print("clean", flush=True)
    else:
        time.sleep(60)
sys.exit(128 + stop.signal_number)
"""


def start(*mode):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *mode], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_told_at_once_and_waits_for_a_boundary(number):
    process = start("polite")
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert output == f"stopping {int(number)}\nclean\n"
    assert process.returncode == 128 + number


def test_the_second_interrupt_leaves_within_two_seconds_even_inside_one_long_operation():
    process = start("long")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "stopping 2\n"
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(timeout=20)
    assert time.monotonic() - asked < 2
    assert process.returncode == 130
    assert process.stdout.read() == "leaving: interrupted twice 130\n"


def test_a_forwarded_terminate_does_not_abandon_the_clean_stop():
    process = start("polite-but-slow")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "stopping 2\n"
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


AT_ONCE = """
import sys, time
from diffcli.commands.interruption import StopNow, StopRequests
class Deaf:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(0.5)
with StopRequests() as stop:
    try:
        with stop.at_once():
            if sys.argv[1] == "swallowed":
                # what is raised while an object goes away is lost
                Deaf()
                print("lost", flush=True)
            else:
                print("ready", flush=True)
                for _ in range(600):
                    try: time.sleep(0.1)
                    except Exception: print("held up", flush=True)
    except StopNow as stopped:
        print("cut by", stopped.signal_number, flush=True)
    # a second time it need not be asked
    try:
        with stop.at_once(): print("begun again", flush=True)
    except StopNow:
        print("not begun", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("mode", "before"), [("plain", ""), ("swallowed", "lost\n")])
def test_work_that_may_be_cut_ends_at_once_and_does_not_begin_again(mode, before, number):
    process = subprocess.Popen(
        [sys.executable, "-c", AT_ONCE, mode], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout.readline() == "ready\n"
    asked = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert output == f"{before}cut by {int(number)}\nnot begun\n"
    assert time.monotonic() - asked < 3


def test_a_deadline_ends_what_has_not_stopped_by_then():
    process = start("slow", "2")
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert output == "stopping 15\nleaving: not saved within the 2 s of training.stop_within_seconds 143\n"
    assert process.returncode == 143
    assert time.monotonic() - asked < 3


def test_a_deadline_of_terminate_does_not_hurry_an_interrupt():
    process = start("slow", "1")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "stopping 2\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2)
    process.kill()
    process.wait()
