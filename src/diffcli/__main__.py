"""`python -m diffcli`, so that `accelerate launch -m diffcli` and torchrun work."""

from __future__ import annotations

import sys

from diffcli.cli.app import run_app
from diffcli.cli.handler import run


def main() -> None:
    """The console script."""
    sys.exit(run(run_app, sys.argv[1:]))


if __name__ == "__main__":
    main()
