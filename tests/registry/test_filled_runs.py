"""Runs that hold something from the beginning: whole when they appear, or not there at all."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from diffcli.errors import StorageError
from diffcli.registry.create import NewRun, create_run, open_run
from diffcli.registry.import_record import (
    ImportedFile,
    ImportRecord,
    read_import_record,
    write_import_record,
)
from diffcli.registry.paths import RunPaths
from diffcli.registry.run_record import UNKNOWN_DATASET, known_dataset


def test_what_a_run_is_filled_with_is_there_when_it_appears(home: Path, spec: NewRun) -> None:
    seen = []

    def fill(paths: RunPaths) -> None:
        seen.append((paths.directory, [path.name for path in home.glob("run-*")]))
        (paths.directory / "weights").write_text("seven")

    run = create_run(home, spec, fill=fill)
    ((staging, present),) = seen
    assert present == []
    assert not staging.exists()
    assert (run.paths.directory / "weights").read_text() == "seven"


def test_a_run_that_cannot_be_filled_is_not_there_and_its_id_is_not_given_again(
    home: Path, spec: NewRun
) -> None:
    def full(_paths: RunPaths) -> None:
        raise StorageError("no space")

    with pytest.raises(StorageError, match="no space"):
        create_run(home, spec, fill=full)
    assert list(home.glob("run-*")) == []
    assert list((home / ".new").iterdir()) == []
    assert create_run(home, spec).id == "run-2"


def test_where_a_run_was_imported_from_is_kept(home: Path, spec: NewRun) -> None:
    file = ImportedFile(role="average", rate=0.9999, path="/there/w.pt", bytes=12, sha256="ab" * 32)
    record = ImportRecord(
        imported_at=datetime.now(UTC), step=7, files=(file,), how="by its name", notices=("note: half",)
    )
    imported = create_run(home, spec, fill=lambda paths: write_import_record(paths, record))
    assert read_import_record(imported.paths) == record
    assert read_import_record(create_run(home, spec).paths) is None


def test_the_dataset_of_an_imported_run_is_unknown_until_it_is_trained(home: Path, spec: NewRun) -> None:
    run = create_run(home, dataclasses.replace(spec, dataset=UNKNOWN_DATASET))
    again = open_run(home, run.id)
    assert known_dataset(again.paths, again.record) == UNKNOWN_DATASET
    assert known_dataset(again.paths, spec) == spec.dataset
