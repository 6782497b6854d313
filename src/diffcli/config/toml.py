"""TOML in and out: files with errors that name them, single values, and values as TOML text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import Path

import tomli

from diffcli.errors import MissingError, StorageError, UsageError


def read_toml(path: Path) -> Mapping[str, object]:
    """The tables of a TOML file; UsageError with line and column when it is none."""
    text = _read_text(path)
    try:
        return tomli.loads(text)
    # a whole number of thousands of digits is a plain ValueError, a list nested too deep a RecursionError
    except (ValueError, RecursionError) as error:
        raise UsageError("a configuration file is not valid TOML", where=f"{path}: {error}") from None


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a directory, not a TOML file") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}", where=error.strerror or str(error)) from error
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(
            "a configuration file is not UTF-8 text",
            where=f"{path}: byte 0x{content[error.start]:02x} at line {line}",
            remedy="save it as UTF-8",
        ) from None


def parse_value(text: str) -> object:
    """One TOML value from its text; ValueError with the reason when it is not exactly one."""
    try:
        document = tomli.loads(f"value = {text}")
    except RecursionError as error:
        raise ValueError(str(error)) from None
    # a line break in the text could start a second key
    if len(document) != 1:
        raise ValueError("more than one value")
    return document["value"]


def value_text(value: object) -> str:
    """A value as TOML writes it: `[1, 2]`, `true`, `"text"`, `0.0001`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(value_text(item) for item in value)}]"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{value_text(key)} = {value_text(item)}' for key, item in value.items())}}}"
    # JSON's escapes are TOML's too, save that JSON leaves the delete character as it is
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
