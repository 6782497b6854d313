"""The event log of a run: starts, saves that failed, signals, and what else a person may ask about later."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from diffcli.errors import CorruptError
from diffcli.registry.json_lines import append_line, read_lines
from diffcli.registry.json_records import decode, encode

# of the event with which an attempt begins to train
STARTED = "started"


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in an attempt after `step` steps; `kind` is one word."""

    at: datetime
    attempt: int
    step: int
    kind: str
    message: str


def append_event(path: Path, event: Event) -> None:
    """Append an event to events.jsonl; StorageError when it does not fit."""
    append_line(path, encode(event))


def read_events(path: Path) -> tuple[Event, ...]:
    """All events in the order they happened; torn lines are passed over."""
    return tuple(event for value in read_lines(path) if (event := _decoded(value, path)) is not None)


def _decoded(value: object, path: Path) -> Event | None:
    if not isinstance(value, dict):
        return None
    try:
        return decode(Event, value, path)
    except CorruptError:
        return None
