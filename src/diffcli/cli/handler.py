"""The one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from diffcli.console.terminal import ReaderLeftError, print_error, print_notice
from diffcli.errors import DiffcliError, InterruptedRunError, StorageError

BUG = 70
_INTERRUPTED = 130
_DEBUG_FLAG = "--debug"
_SHOW_PLACE = f"the same command with {_DEBUG_FLAG} shows where it happened"
_LONGEST_REASON = 200
# how torch says it, on a GPU and on a CPU; its exceptions have no kind in common
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


def run(app: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> int:
    """Run the program on its arguments and return the exit code; `--debug` anywhere shows tracebacks."""
    _replace_closed_streams()
    debug = _DEBUG_FLAG in arguments
    try:
        return _exit_status(app, [argument for argument in arguments if argument != _DEBUG_FLAG])
    except (ReaderLeftError, BrokenPipeError):
        # a closed pipe is the reader's choice (`| head`)
        _discard_output()
        return 0
    except KeyboardInterrupt:
        print_notice("interrupted")
        return _INTERRUPTED
    except Exception as error:
        return _report(error, debug)


def _exit_status(app: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> int:
    status = 0
    try:
        app(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.stdout.flush()
    return status


def _report(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    expected = _expected(error)
    if isinstance(expected, InterruptedRunError):
        _ignore_signals()
    _discard_output()
    if expected is None:
        status = _report_bug(error, debug)
    else:
        print_error(expected, rank=int(os.environ.get("RANK", "0")))
        status = expected.exit_code
    _discard_output()
    return status


def _ignore_signals() -> None:
    """Let nobody who asks again keep the program from saying how it stopped."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _expected(error: Exception) -> DiffcliError | None:
    """The error in a user's words; None for a fault of ours."""
    if isinstance(error, DiffcliError):
        return error
    if isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY):
        return DiffcliError(
            "there is not enough memory",
            where=_reason(error),
            remedy="train needs less with training.microbatch = auto or model.checkpoint_blocks = true, "
            "sample and eval with a smaller --batch-size",
        )
    if isinstance(error, OSError):
        reason = error.strerror or _reason(error)
        return StorageError(
            reason[:1].lower() + reason[1:], where=str(error.filename or ""), remedy=_SHOW_PLACE
        )
    return None


def _report_bug(bug: Exception, debug: bool) -> int:
    if not debug:
        place = traceback.extract_tb(bug.__traceback__)[-1]
        print_notice(
            f"error: {type(bug).__name__}: {_reason(bug)}\n  at {place.filename}:{place.lineno}\n"
            f"  this is a bug in diffcli; {_SHOW_PLACE}"
        )
    return BUG


def _reason(error: Exception) -> str:
    """The first line of what an error says; some libraries write pages."""
    first_line, _, _ = str(error).strip().partition("\n")
    return first_line if len(first_line) <= _LONGEST_REASON else f"{first_line[:_LONGEST_REASON]}..."


def _replace_closed_streams() -> None:
    """Let a stream that was closed before the start (`>&-`) swallow what it is told.

    Otherwise the next opened file would get its number, and what is printed.
    """
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _discard_output() -> None:
    """Drop what the streams cannot get rid of, or the interpreter would fail to write it at its exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
