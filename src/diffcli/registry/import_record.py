"""Where an imported run comes from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from diffcli.registry.json_records import read_record, write_record
from diffcli.registry.paths import RunPaths

IMPORT_SCHEMA = 1
ImportedRole = Literal["weights", "average", "optimizer"]


@dataclass(frozen=True, kw_only=True)
class ImportedFile:
    """One file as it was read; rate: of an average, else None."""

    role: ImportedRole
    rate: float | None
    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ImportRecord:
    """import.json: written once. how: by what the preset was known; notices: as they were told."""

    imported_at: datetime
    step: int
    files: tuple[ImportedFile, ...]
    how: str
    notices: tuple[str, ...]


def write_import_record(run: RunPaths, record: ImportRecord) -> None:
    """Write import.json; StorageError when that fails."""
    write_record(run.imported, record, schema=IMPORT_SCHEMA)


def read_import_record(run: RunPaths) -> ImportRecord | None:
    """import.json; None when the run was not imported, CorruptError when it is broken."""
    if not run.imported.exists():
        return None
    return read_record(ImportRecord, run.imported, schema=IMPORT_SCHEMA)
