"""What a process does that `train --gpus` or `--procs` started, besides what any rank does."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from diffcli.errors import DiffcliError

# the descriptor on which nothing is ever written, and which ends with the launcher
LIFELINE = "DIFFCLI_LIFELINE"
# what the user called the program, for the run's record
PROGRAM = "DIFFCLI_PROGRAM"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# more than a step and its save should take; a process that hangs must not stay for ever
_LAST_SECONDS = 300.0


def join_launcher(*, last_seconds: float = _LAST_SECONDS) -> bool:
    """Take up the duties of a launched rank; False when nobody of ours launched this process.

    From here on a stop signal ends the process at once, until a command listens for it. When the launcher is
    gone, however it went, this process does what SIGTERM asks for, and ends `last_seconds` later at most.
    """
    descriptor = os.environ.pop(LIFELINE, "")
    if not descriptor:
        return False
    os.set_inheritable(int(descriptor), False)
    sys.argv[0] = os.environ.pop(PROGRAM, sys.argv[0])
    for number in STOP_SIGNALS:
        signal.signal(number, _leave)
    # the launcher had them wait, so that none would meet an interpreter in the midst of its start
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    threading.Thread(
        target=_stop_with_launcher, args=(int(descriptor), last_seconds), name="lifeline", daemon=True
    ).start()
    return True


@contextlib.contextmanager
def common_errors_told_once() -> Iterator[None]:
    """Leave it to the first rank to tell an error of the block that all of them must have found.

    Before they have met, all ranks of a launch do the same on one machine, with one command line.
    """
    try:
        yield
    except DiffcliError as error:
        import torch.distributed as dist

        if not dist.is_initialized() and os.environ["RANK"] != "0":
            error.told_by_first = True
        raise


def _leave(signal_number: int, _frame: FrameType | None) -> None:
    os._exit(128 + signal_number)


def _stop_with_launcher(descriptor: int, last_seconds: float) -> None:
    os.read(descriptor, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(last_seconds)
    os._exit(128 + signal.SIGTERM)
