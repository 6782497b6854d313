"""A preparation that is asked to stop at a certain image, and has heard of it before it goes on."""

from __future__ import annotations

import os
import signal
import threading

from diffcli.records.datasets import PrepareListener


def interrupting(moment: int, number: signal.Signals = signal.SIGTERM) -> PrepareListener:
    """A listener that sends this process a signal once `moment` images are done."""
    heard = threading.Event()

    def told(done: int, _total: int) -> None:
        if done >= moment and not heard.is_set():
            os.kill(os.getpid(), number)
            assert heard.wait(30)

    return PrepareListener(progress=told, on_stop=lambda _number: heard.set())
