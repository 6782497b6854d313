"""New runs, and runs opened by name."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from diffcli import durable
from diffcli.errors import StorageError, UsageError
from diffcli.registry.home import staging_of
from diffcli.registry.ids import claim_number, entry_names, number_of, run_id
from diffcli.registry.json_records import ConfigJSON
from diffcli.registry.lock import acquire_lock, lock_holder
from diffcli.registry.paths import RunPaths
from diffcli.registry.process import ProcessIdentity, host_name, living_process, this_process
from diffcli.registry.resolve import LATEST, resolve
from diffcli.registry.run_record import (
    Annotations,
    DatasetFacts,
    ParentCheckpoint,
    RunRecord,
    Versions,
    read_run_record,
    write_annotations,
    write_run_record,
)
from diffcli.registry.status import new_status, write_status

# how a rename onto a run, or onto a file in its place, fails
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_NAME = re.compile(r"(?![-.])[^/\\]{1,100}")


@dataclass(frozen=True, kw_only=True)
class NewRun:
    """What a run is made from; `name` may be empty, `config` is what `config.encode` makes of a RunConfig."""

    name: str
    preset: str
    command_line: tuple[str, ...]
    config: ConfigJSON
    total_steps: int
    versions: Versions
    git_commit: str | None
    dataset: DatasetFacts
    parent: ParentCheckpoint | None = None
    validation: DatasetFacts | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run on disk: where its parts lie, and what it is."""

    id: str
    paths: RunPaths
    record: RunRecord


def create_run(home: Path, spec: NewRun, *, fill: Callable[[RunPaths], None] | None = None) -> Run:
    """Make a new run in the runs directory; it appears there whole.

    fill: puts into the run, before it appears, what it is to hold from the beginning. Raises UsageError for a
    name that could be taken for something else, and StorageError when the directory cannot be written.
    """
    check_name(spec.name)
    clear_staging(home)
    while True:
        number = claim_number(home)
        try:
            return _create(home, number, spec, fill)
        except StorageError as error:
            # somebody deleted the markers, and another process was given the same number
            if getattr(error.__cause__, "errno", None) not in _TAKEN:
                raise


def open_run(home: Path, reference: str) -> Run:
    """The run that a reference names (see `resolve`).

    Raises MissingError when there is none, CorruptError when its record is broken.
    """
    paths = resolve(home, reference)
    return Run(id=paths.directory.name, paths=paths, record=read_run_record(paths))


def check_name(name: str) -> None:
    """Raise UsageError unless the name can name a run beside ids, `latest` and paths; none at all is fine."""
    if not name:
        return
    if name == LATEST or number_of(name) or not name.isprintable() or not _NAME.fullmatch(name):
        raise UsageError(
            f"a run cannot be named {name!r}",
            remedy=f"up to 100 printable characters without slashes, not starting with - or ., "
            f"neither `{LATEST}` nor like `run-7`",
        )


def _create(home: Path, number: int, spec: NewRun, fill: Callable[[RunPaths], None] | None) -> Run:
    process = this_process()
    staging = staging_of(home) / f"{number}@{process.pid}@{process.host}"
    try:
        with durable.storage_errors(staging):
            staging.mkdir(parents=True)
        record = _record_of(spec, number)
        final = home / run_id(number)
        # locked, so that nobody takes it for a leftover
        with acquire_lock(RunPaths(staging)):
            _write_all(RunPaths(staging), record, spec, process)
            if fill is not None:
                fill(RunPaths(staging))
            # a rename onto a directory that holds anything fails, so this claims the number a second time
            durable.commit_directory(staging, final, untouched=RunPaths(staging).lock.name)
    except BaseException:
        durable.remove_tree(staging)
        raise
    return Run(id=record.id, paths=RunPaths(final), record=record)


def _record_of(spec: NewRun, number: int) -> RunRecord:
    return RunRecord(
        id=run_id(number),
        name=spec.name,
        created_at=datetime.now(UTC),
        preset=spec.preset,
        command_line=spec.command_line,
        config=spec.config,
        versions=spec.versions,
        git_commit=spec.git_commit,
        dataset=spec.dataset,
        parent=spec.parent,
        validation=spec.validation,
    )


def _write_all(staged: RunPaths, record: RunRecord, spec: NewRun, process: ProcessIdentity) -> None:
    write_run_record(staged, record)
    write_annotations(staged, Annotations(name=spec.name))
    write_status(staged, new_status(process, spec.total_steps))


def clear_staging(home: Path) -> tuple[Path, ...]:
    """Delete what processes of this machine left that were killed while they made a run, and say which."""
    leftovers = abandoned_staging(home)
    for leftover in leftovers:
        durable.remove_tree(leftover)
    return leftovers


def abandoned_staging(home: Path) -> tuple[Path, ...]:
    """The runs in the making whose maker, a process of this machine, is gone."""
    staged = (staging_of(home) / name for name in sorted(entry_names(staging_of(home))))
    return tuple(leftover for leftover in staged if _maker_is_gone(leftover))


def _maker_is_gone(leftover: Path) -> bool:
    _, _, maker = leftover.name.partition("@")
    pid, _, host = maker.partition("@")
    if host != host_name() or not pid.isdecimal() or living_process(int(pid)):
        return False
    # a container may have the same host name and processes that we cannot see
    return lock_holder(RunPaths(leftover)) is None
