"""Published files for `prepare`, kept under the data home until their user deletes them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from diffcli.commands.interruption import StopRequests
from diffcli.data.downloads.download import download
from diffcli.data.downloads.remote_file import RemoteFile
from diffcli.errors import InterruptedRunError
from diffcli.records.datasets import PrepareListener, PrepareProgress

_DIRECTORY = ".downloads"


def downloaded(file: RemoteFile, *, url: str, home: Path, listener: PrepareListener) -> Path:
    """The file below the data home, fetched unless it is there; url: of a mirror, "" for the published one.

    Errors: those of `download`, and InterruptedRunError. Main thread only.
    """
    remote = dataclasses.replace(file, url=url or file.url)
    with StopRequests(on_request=listener.on_stop) as stop:
        return download(
            remote,
            home / _DIRECTORY,
            progress=_stoppable(listener.progress, stop),
            notice=listener.notice,
        )


def _stoppable(progress: PrepareProgress, stop: StopRequests) -> PrepareProgress:
    def report(done: int, total: int) -> None:
        progress(done, total)
        if stop.signal_number:
            raise InterruptedRunError(
                f"stopped after {done:,} of {total:,} bytes, which are kept",
                signal_number=stop.signal_number,
                remedy="the same command goes on from there",
            )

    return report
