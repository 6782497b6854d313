"""Records come back as they were written, and a wrong file is named with its field."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcli.config.encode import config_from_json
from diffcli.config.sections import RunConfig
from diffcli.errors import CorruptError, StorageError
from diffcli.records.training import MetricRow, Speed, TermMeans
from diffcli.registry.create import NewRun, create_run
from diffcli.registry.json_records import decode, encode, read_record, write_record
from diffcli.registry.run_record import (
    Annotations,
    Attempt,
    ParentCheckpoint,
    RunRecord,
    SettingChange,
    attempt_numbers,
    read_annotations,
    read_attempts,
    read_run_record,
    write_annotations,
    write_attempt,
)
from diffcli.registry.status import RunStatus, read_status, write_status


def _attempt(spec: NewRun, number: int) -> Attempt:
    return Attempt(
        number=number,
        started_at=datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
        first_step=500,
        changes=(SettingChange(key="training.precision", before="fp32", after="bf16"),),
        world_size=2,
        device="cpu",
        threads=1,
        precision="bf16",
        versions=spec.versions,
        host="here",
        pid=42,
    )


def test_every_record_of_a_run_comes_back(home: Path, spec: NewRun) -> None:
    child = dataclasses.replace(
        spec,
        parent=ParentCheckpoint(run_id="run-7", step=500),
        command_line=("diffcli", "a b", "odd \udcff byte", "日本"),
    )
    run = create_run(home, child)
    assert read_run_record(run.paths) == run.record
    assert config_from_json(run.record.config) == RunConfig()
    assert config_from_json(read_run_record(run.paths).config) == RunConfig()
    status = write_status(run.paths, dataclasses.replace(read_status(run.paths), state="failed", exit_code=6))
    assert read_status(run.paths).exit_code == 6
    assert read_status(run.paths).heartbeat.counter == status.heartbeat.counter == 2
    annotations = Annotations(name="Änderung", tags=("a", "b"), note="two\nlines", pinned=True)
    write_annotations(run.paths, annotations)
    assert read_annotations(run.paths, run.record) == annotations
    assert attempt_numbers(run.paths) == ()
    for number in (1, 2):
        write_attempt(run.paths, _attempt(spec, number))
    assert attempt_numbers(run.paths) == (1, 2)
    assert read_attempts(run.paths) == (_attempt(spec, 1), _attempt(spec, 2))


def test_without_annotations_a_run_has_its_first_name(home: Path, spec: NewRun) -> None:
    run = create_run(home, spec)
    run.paths.annotations.unlink()
    assert read_annotations(run.paths, run.record) == Annotations(name="base")


_NUMBERS = st.floats()
_MEANS = st.builds(
    TermMeans, overall=_NUMBERS, quartiles=st.lists(st.none() | _NUMBERS, max_size=4).map(tuple)
)
_ROWS = st.builds(
    MetricRow,
    step=st.integers(),
    images_seen=st.integers(),
    loss=_MEANS,
    mse=st.none() | _MEANS,
    vb=st.none() | _MEANS,
    grad_norm=_NUMBERS,
    param_norm=_NUMBERS,
    lr=_NUMBERS,
    loss_scale=st.none() | _NUMBERS,
    speed=st.builds(
        Speed,
        images_per_second=_NUMBERS,
        seconds=_NUMBERS,
        data_wait_share=_NUMBERS,
        memory_bytes=st.integers(),
    ),
)


@given(_ROWS)
def test_numbers_survive_bit_by_bit_through_strict_json(row: MetricRow) -> None:
    text = json.dumps(encode(row), allow_nan=False)
    # repr tells nan from nan as equal, and -0.0 from 0.0 as different
    assert repr(decode(MetricRow, json.loads(text), Path("metrics.jsonl"))) == repr(row)


def _edited(path: Path, *keys: str, value: Any) -> None:
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (("preset",), 7, "preset is 7, not text"),
        (("preset",), None, "lacks preset"),
        (("dataset", "count"), "many", "dataset.count is 'many', not a whole number"),
        (("dataset", "count"), True, "dataset.count is True, not a whole number"),
        (("dataset", "weak_hash"), 0, "dataset.weak_hash is 0, not true or false"),
        (("dataset", "class_names"), ["a", 1], "dataset.class_names is 1, not text"),
        (("versions", "torch"), None, "versions lacks torch"),
        (
            ("created_at",),
            "2026-01-01T00:00:00",
            "created_at is '2026-01-01T00:00:00', not a time with its zone",
        ),
        (("created_at",), 5, "created_at is 5, not a time with its zone"),
        (("config",), [], "config is [], not an object"),
        (("config", "training"), 1, "config is 1, not an object"),
        (("surprise",), 1, "has a key that is not known: surprise"),
        (("schema",), None, "schema is missing"),
        (("schema",), "1", "schema is missing"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(
    home: Path, spec: NewRun, keys: tuple[str, ...], value: Any, told: str
) -> None:
    run = create_run(home, spec)
    _edited(run.paths.record, *keys, value=value)
    with pytest.raises(CorruptError) as caught:
        read_run_record(run.paths)
    assert caught.value.what.startswith(str(run.paths.record))
    assert told in caught.value.what


def test_a_state_that_readers_work_out_cannot_be_stored(home: Path, spec: NewRun) -> None:
    run = create_run(home, spec)
    _edited(run.paths.status, "state", value="crashed")
    with pytest.raises(CorruptError, match=r"state is 'crashed', not one of created, running"):
        read_status(run.paths)


@pytest.mark.parametrize("kind", [RunRecord, RunStatus])
def test_a_newer_schema_is_refused_with_advice(home: Path, spec: NewRun, kind: type) -> None:
    run = create_run(home, spec)
    path = run.paths.record if kind is RunRecord else run.paths.status
    _edited(path, "schema", value=2)
    with pytest.raises(CorruptError, match="schema 2") as caught:
        read_record(kind, path, schema=1)
    assert "upgrade" in caught.value.remedy


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b"\xff\xfe", b'{"schema": 1' + b"[" * 100_000, b'{"a":' * 100_000, b"\0" * 4096],
)
def test_what_is_no_record_is_corrupt(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=str(path)):
        read_record(Annotations, path, schema=1)


def test_a_missing_file_is_corrupt_and_a_forbidden_one_storage(
    open_directory: Path, without_privileges
) -> None:
    path = open_directory / "annotations.json"
    with pytest.raises(CorruptError, match="missing"):
        read_record(Annotations, path, schema=1)
    write_record(path, Annotations(name="a"), schema=1)
    path.chmod(0)
    with without_privileges(), pytest.raises(StorageError, match="cannot read"):
        read_record(Annotations, path, schema=1)


def test_infinite_numbers_are_written_as_text() -> None:
    assert encode((math.inf, -math.inf, math.nan)) == ["inf", "-inf", "nan"]
