"""Published files, kept where they were put until their user deletes them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from diffcli.commands.interruption import StopRequests
from diffcli.data.downloads.download import Patience, download
from diffcli.data.downloads.remote_file import RemoteFile
from diffcli.errors import InterruptedRunError
from diffcli.records.datasets import PrepareListener, PrepareProgress

_DIRECTORY = ".downloads"


def downloaded(file: RemoteFile, *, url: str, home: Path, listener: PrepareListener) -> Path:
    """The file below the data home, fetched unless it is there; url: of a mirror, "" for the published one.

    Errors: those of `download`, and InterruptedRunError. Main thread only.
    """
    return downloaded_into(home / _DIRECTORY, dataclasses.replace(file, url=url or file.url), listener)


def downloaded_into(
    directory: Path, file: RemoteFile, listener: PrepareListener, patience: Patience | None = None
) -> Path:
    """The file in that directory, fetched unless one of its size is there; errors as `downloaded`."""
    with StopRequests(on_request=listener.on_stop) as stop:
        return download(
            file,
            directory,
            progress=_stoppable(listener.progress, stop),
            notice=listener.notice,
            patience=patience,
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
