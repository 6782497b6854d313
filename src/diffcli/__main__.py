"""`python -m diffcli`, so that `accelerate launch -m diffcli` and torchrun work."""

from __future__ import annotations

import os
import signal
import sys

from diffcli.cli.app import run_app
from diffcli.cli.handler import run


def main() -> None:
    """The console script."""
    # read when torch is imported; else every rank warns that no parameter is unused (see workers.py)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    status = run(run_app, sys.argv[1:])
    if status in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        # launchers repeat a signal, which must not change how a clean stop ends
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(status)


if __name__ == "__main__":
    main()
