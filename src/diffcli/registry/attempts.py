"""Each start and resume of a run."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import datetime

from diffcli import durable
from diffcli.registry.json_records import JSONValue, read_record, write_record
from diffcli.registry.paths import RunPaths
from diffcli.registry.run_record import Versions

ATTEMPT_SCHEMA = 1
_ATTEMPT_FILE = re.compile(r"([0-9]{3,})\.json")


@dataclass(frozen=True, kw_only=True)
class SettingChange:
    """A setting that an attempt has otherwise than the run's record; `key` is its dotted path."""

    key: str
    before: JSONValue
    after: JSONValue


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """attempts/NNN.json: one start or resume, counted from 1, that went on after `first_step` steps."""

    number: int
    started_at: datetime
    first_step: int
    changes: tuple[SettingChange, ...]
    world_size: int
    device: str
    threads: int
    precision: str
    versions: Versions
    host: str
    pid: int


def write_attempt(run: RunPaths, attempt: Attempt) -> None:
    """Write attempts/NNN.json; StorageError when that fails."""
    with durable.storage_errors(run.attempts):
        run.attempts.mkdir(exist_ok=True)
    write_record(run.attempt(attempt.number), attempt, schema=ATTEMPT_SCHEMA)


def read_attempts(run: RunPaths) -> tuple[Attempt, ...]:
    """All attempts, first to last."""
    return tuple(
        read_record(Attempt, run.attempt(number), schema=ATTEMPT_SCHEMA) for number in attempt_numbers(run)
    )


def attempt_numbers(run: RunPaths) -> tuple[int, ...]:
    """The numbers of all attempts, first to last; the next one is one more than the last."""
    with contextlib.suppress(FileNotFoundError):
        names = (_ATTEMPT_FILE.fullmatch(path.name) for path in run.attempts.iterdir())
        return tuple(sorted(int(name.group(1)) for name in names if name))
    return ()
