"""Rows of runs at rest, kept so that a long list need not read every file again.

The directory of a run stays the truth: a kept row counts only while `stat` tells the same of the files that
it was made from. Whatever is wrong with the index, it is as if there were none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from diffcli import __version__, durable
from diffcli.errors import StorageError
from diffcli.records.runs import RunRow
from diffcli.registry.home import index_of
from diffcli.registry.ids import run_id
from diffcli.registry.json_records import encode
from diffcli.registry.paths import RunPaths

INDEX_SCHEMA = 1
_RUN = RunPaths(Path())
_FILES = tuple(path.name for path in (_RUN.record, _RUN.status, _RUN.annotations, _RUN.metrics))
_ABSENT = (0, 0, 0, 0)
# two changes within one tick of a file system's clock look like one; the coarsest tick every two seconds
_TICK_NANOSECONDS = 2_000_000_000

# inode, bytes, and both instants of change in nanoseconds, of each file that a row is made from
FileFacts = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class KeptRow:
    """A row, and what was told of its files before they were read."""

    facts: FileFacts
    row: RunRow


def file_facts(directory: str) -> FileFacts:
    """What `stat` tells of the files that the row of a run is made from."""
    facts: list[int] = []
    for name in _FILES:
        try:
            status = os.stat(f"{directory}/{name}")  # noqa: PTH116 - forty thousand of them
        except OSError:
            facts += _ABSENT
        else:
            facts += (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return tuple(facts)


def read_index(home: Path) -> Mapping[int, KeptRow]:
    """The kept rows by the number of their run; none from a broken index, or another version's."""
    path = index_of(home)
    try:
        if not path.is_file():
            return {}
        heading, _, rows = path.read_bytes().partition(b"\n")
        if heading != _heading(rows):
            return {}
        now = time.time()
        return {values[0]: _decode(values, now) for values in json.loads(rows)}
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def write_index(home: Path, rows: Mapping[int, KeptRow]) -> None:
    """Replace the index atomically; where that cannot be done, lists go on without it."""
    lines = ",\n".join(_encode(number, kept) for number, kept in rows.items())
    body = f"[\n{lines}\n]\n".encode("ascii")
    with contextlib.suppress(StorageError):
        durable.write_bytes(index_of(home), _heading(body) + b"\n" + body)


def settled(home: Path, rows: Mapping[int, KeptRow], *, age_nanoseconds: int) -> Mapping[int, KeptRow]:
    """Of rows read in the last `age_nanoseconds`, those whose files cannot change without our seeing it.

    A file that changed just before it was read may change again within the same tick of its clock.
    """
    now = _clock_of(home)
    if now is None:
        return {}
    until = now - age_nanoseconds - _TICK_NANOSECONDS
    return {number: kept for number, kept in rows.items() if _changed_last(kept.facts) < until}


def _clock_of(home: Path) -> int | None:
    """Now by the clock that stamps the files of `home`, in nanoseconds; None when nothing can be written."""
    try:
        with tempfile.TemporaryFile(dir=home) as probe:
            return os.fstat(probe.fileno()).st_mtime_ns
    except OSError:
        return None


def _changed_last(facts: FileFacts) -> int:
    instants: Iterable[int] = (*facts[2::4], *facts[3::4])
    return max(instants)


def _heading(rows: bytes) -> bytes:
    """The first line: by which program the rows were made, and their digest."""
    facts = {"schema": INDEX_SCHEMA, "diffcli": __version__, "sha256": hashlib.sha256(rows).hexdigest()}
    return json.dumps(facts).encode("ascii")


def _encode(number: int, kept: KeptRow) -> str:
    row = kept.row
    assert row.created_at is not None
    values = (
        number,
        *(row.name, row.preset, row.state, row.reason, row.step, row.total_steps, encode(row.loss)),
        *(row.created_at.isoformat(), row.pinned, row.pinned_steps),
        kept.facts,
    )
    return json.dumps(values)


def _decode(values: Any, now: float) -> KeptRow:
    number, name, preset, state, reason, step, total_steps, loss, created_at, pinned, pins, facts = values
    created = datetime.fromisoformat(created_at)
    row = RunRow(
        id=run_id(number),
        name=name,
        preset=preset,
        state=state,
        reason=reason,
        step=step,
        total_steps=total_steps,
        # text stands for what JSON has no number for
        loss=None if loss is None else float(loss),
        created_at=created,
        age_seconds=max(0.0, now - created.timestamp()),
        pinned=pinned,
        pinned_steps=tuple(pins),
        size_bytes=None,
    )
    return KeptRow(facts=tuple(facts), row=row)
