"""The one place where errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from diffcli.console.terminal import print_error, print_notice
from diffcli.errors import DiffcliError

BUG = 70
_INTERRUPTED = 130
_DEBUG_FLAG = "--debug"


def run(app: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> int:
    """Run the program on its arguments and return the exit code; `--debug` anywhere shows tracebacks."""
    debug = _DEBUG_FLAG in arguments
    rank = int(os.environ.get("RANK", "0"))
    try:
        app([argument for argument in arguments if argument != _DEBUG_FLAG])
        sys.stdout.flush()
    except SystemExit as end:
        return _exit_status(end)
    except DiffcliError as error:
        if debug:
            traceback.print_exc()
        print_error(error, rank=rank)
        return error.exit_code
    except KeyboardInterrupt:
        print_notice("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except Exception as bug:
        return _report_bug(bug, debug)
    return 0


def _exit_status(end: SystemExit) -> int:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    return end.code if isinstance(end.code, int) else int(end.code is not None)


def _reader_left() -> int:
    # a closed pipe is the reader's choice (`| head`), and the interpreter would complain once more at exit
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _report_bug(bug: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    else:
        place = traceback.extract_tb(bug.__traceback__)[-1]
        print_notice(
            f"error: {type(bug).__name__}: {bug}\n  at {place.filename}:{place.lineno}\n"
            f"  this is a bug in diffcli; the same command with {_DEBUG_FLAG} shows where it happened"
        )
    return BUG
