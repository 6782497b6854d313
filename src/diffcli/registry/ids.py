"""Run ids: `run-N`, unique among all processes and machines of a runs directory, and never given again."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from diffcli import durable
from diffcli.registry.home import markers_of, staging_of, trash_of
from diffcli.registry.json_records import read_error

_RUN_ID = re.compile(r"run-([1-9][0-9]{0,17})")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


def run_id(number: int) -> str:
    """The id of a number, from 1 upwards."""
    return f"run-{number}"


def number_of(name: str) -> int | None:
    """The number of an id; None when the name is no id."""
    match = _RUN_ID.fullmatch(name)
    return int(match.group(1)) if match else None


def claim_number(home: Path) -> int:
    """A number that no run ever had or will have; StorageError when the runs directory cannot be written."""
    markers = markers_of(home)
    with durable.storage_errors(markers):
        markers.mkdir(parents=True, exist_ok=True)
    number = 1 + max(_numbers_given(home), default=0)
    while not _claim(markers / str(number)):
        number += 1
    return number


def run_numbers(home: Path) -> list[int]:
    """The numbers of all entries of a runs directory, newest first; empty when there is no directory."""
    return sorted((n for name in entry_names(home) if (n := number_of(name))), reverse=True)


def entry_names(directory: Path) -> list[str]:
    """The names in a directory; empty when it is not there."""
    try:
        return os.listdir(directory)  # noqa: PTH208 - ten thousand paths take longer than their names
    except FileNotFoundError:
        return []
    except OSError as error:
        raise read_error(error, directory) from error


def _claim(marker: Path) -> bool:
    with durable.storage_errors(marker):
        try:
            marker.mkdir()
        except FileExistsError:
            return False
        durable.sync_directory(marker.parent)
    return True


def _numbers_given(home: Path) -> Iterator[int]:
    """What the markers say, and what exists in case somebody deleted them."""
    for name in entry_names(markers_of(home)):
        if _NUMBER.fullmatch(name):
            yield int(name)
    for directory in (home, trash_of(home)):
        yield from run_numbers(directory)
    for name in entry_names(staging_of(home)):
        with contextlib.suppress(ValueError):
            yield int(name.partition("@")[0])
