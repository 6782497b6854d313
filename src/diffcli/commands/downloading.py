"""Published files, kept where they were put until their user deletes them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from diffcli.commands.course import Course
from diffcli.data.downloads.download import Patience, download
from diffcli.data.downloads.remote_file import RemoteFile

_DIRECTORY = ".downloads"


def download_place(file: RemoteFile, home: Path) -> Path:
    """Where a published file lies once it is fetched."""
    return home / _DIRECTORY / file.name


def downloaded(file: RemoteFile, *, url: str, home: Path, course: Course) -> Path:
    """The file below the data home, fetched unless it is there; url: of a mirror, "" for the published one.

    Errors: those of `download`, and InterruptedRunError.
    """
    remote = dataclasses.replace(file, url=url or file.url)
    return downloaded_into(download_place(file, home).parent, remote, course)


def downloaded_into(
    directory: Path, file: RemoteFile, course: Course, patience: Patience | None = None
) -> Path:
    """The file in that directory, fetched unless one of its size is there; errors as `downloaded`."""
    return download(
        file,
        directory,
        progress=course.told_bytes,
        notice=course.listener.notice,
        begin=lambda work: course.listener.begin(work, "bytes"),
        patience=patience,
    )
