"""The logs are only appended to, and what a kill tore does no harm."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from diffcli.errors import StorageError
from diffcli.records.training import MetricRow, Speed, TermMeans
from diffcli.registry.events import Event, append_event, read_events
from diffcli.registry.metrics import LoggedRow, append_metrics, last_loss, read_metrics

_FILL_THE_DISK = """
import resource, sys
from pathlib import Path
from diffcli.errors import StorageError
from diffcli.registry.json_lines import append_line
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, -1))
try:
    append_line(path, {"attempt": 1, "step": 99, "filler": "x" * 100})
except StorageError as error:
    print(error.exit_code, error.what, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def _row(step: int, loss: float = 0.5) -> MetricRow:
    term = TermMeans(overall=loss, quartiles=(loss, None, 0.1, 0.2))
    return MetricRow(
        step=step,
        images_seen=8 * step,
        loss=term,
        mse=term,
        vb=None,
        grad_norm=1.0,
        param_norm=2.0,
        lr=1e-3,
        loss_scale=None,
        speed=Speed(images_per_second=10.0, seconds=1.0, data_wait_share=0.0, memory_bytes=1),
    )


def _log(path: Path, attempt: int, *steps: int, loss: float = 0.5) -> None:
    for step in steps:
        append_metrics(path, LoggedRow(attempt=attempt, row=_row(step, loss)))


def _steps(path: Path) -> list[tuple[int, int]]:
    return [(logged.attempt, logged.row.step) for logged in read_metrics(path).rows]


def test_rows_come_back_in_order(path: Path) -> None:
    _log(path, 1, 10, 20, 30)
    log = read_metrics(path)
    assert [logged.row for logged in log.rows] == [_row(10), _row(20), _row(30)]
    assert log.unreadable_lines == 0


def test_no_file_is_an_empty_log(path: Path) -> None:
    assert read_metrics(path).rows == ()
    assert last_loss(path) is None


def test_a_resumed_attempt_takes_the_place_of_what_came_after_its_start(path: Path) -> None:
    _log(path, 1, 10, 20, 30, 40)
    before = path.read_bytes()
    _log(path, 2, 30)
    assert path.read_bytes().startswith(before)
    assert _steps(path) == [(1, 10), (1, 20), (2, 30)]
    _log(path, 2, 40, 50)
    _log(path, 3, 50)
    assert _steps(path) == [(1, 10), (1, 20), (2, 30), (2, 40), (3, 50)]


@pytest.mark.parametrize("kept_bytes", [1, 40, -2])
def test_a_torn_last_line_is_passed_over_and_not_glued_to_the_next(path: Path, kept_bytes: int) -> None:
    _log(path, 1, 10, 20, loss=0.25)
    whole = path.read_bytes()
    line = whole.splitlines(keepends=True)[1]
    path.write_bytes(whole + line[:kept_bytes])
    assert _steps(path) == [(1, 10), (1, 20)]
    assert read_metrics(path).unreadable_lines == 1
    assert last_loss(path) == 0.25
    _log(path, 2, 20, 30, loss=0.125)
    assert _steps(path) == [(1, 10), (2, 20), (2, 30)]
    assert last_loss(path) == 0.125


def test_garbage_lines_hide_no_others(path: Path) -> None:
    _log(path, 1, 10)
    with path.open("ab") as file:
        file.write(b'\0\0\0\n[1]\n{"attempt": 1}\n{"attempt": "x", "step": 3}\n\xff\n')
    _log(path, 1, 20)
    log = read_metrics(path)
    assert [logged.row.step for logged in log.rows] == [10, 20]
    assert log.unreadable_lines == 5


def test_the_last_loss_is_read_from_the_end_of_a_long_log(path: Path) -> None:
    _log(path, 1, *range(10, 1000, 10))
    _log(path, 1, 1000, loss=0.75)
    assert last_loss(path) == 0.75
    _log(path, 1, 1010, loss=math.nan)
    assert math.isnan(last_loss(path) or 0.0)
    assert math.isnan(read_metrics(path).rows[-1].row.loss.overall)
    json.loads(path.read_text().splitlines()[-1], parse_constant=pytest.fail)


def test_a_full_disk_is_told_and_the_log_goes_on_later(path: Path, spawn) -> None:
    _log(path, 1, 10, 20)
    told, _ = spawn(_FILL_THE_DISK, path).communicate(timeout=60)
    assert told.startswith("6 cannot write ")
    assert str(path) in told
    assert _steps(path) == [(1, 10), (1, 20)]
    _log(path, 1, 30)
    assert _steps(path) == [(1, 10), (1, 20), (1, 30)]


def test_a_log_that_cannot_be_written_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StorageError, match=str(path)):
        _log(path, 1, 10)


def test_events_come_back_and_torn_ones_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_events(path) == ()
    events = tuple(
        Event(at=datetime(2026, 1, 1, tzinfo=UTC), attempt=1, step=step, kind="save", message="ü")
        for step in (5, 6)
    )
    append_event(path, events[0])
    with path.open("ab") as file:
        file.write(b'{"at": "20')
    append_event(path, events[1])
    assert read_events(path) == events
