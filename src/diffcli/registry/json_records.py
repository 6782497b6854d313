"""Frozen dataclasses as JSON and back, strictly: a wrong file is named with the field that is wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from diffcli import durable
from diffcli.errors import CorruptError, StorageError

if TYPE_CHECKING:
    JSONValue = None | bool | int | float | str | Sequence["JSONValue"] | Mapping[str, "JSONValue"]
else:
    JSONValue = object  # what the decoder meets: any value passes
# sections, each with its fields, as `config.encode` writes a RunConfig
ConfigJSON = Mapping[str, Mapping[str, JSONValue]]
Record = TypeVar("Record")
_Decoder = Callable[[Any], Any]

# numbers that JSON has not are written as text
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_SCHEMA = "schema"


class NewerSchemaError(CorruptError):
    """A record that a newer diffcli wrote: it is sound, and nothing may be done about it here."""


class _MismatchError(Exception):
    """A value that does not fit its field; the path grows while the error travels outwards."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path: list[str] = []


def encode(value: object) -> Any:
    """A record, or a value of one of its fields, as plain JSON values."""
    if dataclasses.is_dataclass(value):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    return _encode_scalar(value)


def _encode_scalar(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        # a file name may hold bytes that are no text
        return str(value).encode("utf-8", "backslashreplace").decode()
    return value


def decode(kind: type[Record], value: JSONValue, file: Path, *, partly: bool = False) -> Record:
    """A record from plain JSON values; with `partly`, keys that the record has not are passed over.

    A field with a default may be lacking: an older diffcli did not know it. Raises CorruptError that names
    the file and the dotted path of the first field that does not fit.
    """
    wanted: Any = kind
    decoder = _partial_decoder(wanted) if partly else _decoder(wanted)
    try:
        record: Record = decoder(value)
    except _MismatchError as error:
        field = ".".join(reversed(error.path))
        raise CorruptError(
            f"{file}: {field} {error.problem}" if field else f"{file} {error.problem}",
            remedy="restore the file from a backup, or move the run away with `diffcli runs rm`",
        ) from error
    return record


def write_record(path: Path, record: object, *, schema: int) -> None:
    """Replace a file atomically by a record and its schema number; StorageError when that fails."""
    # ASCII only: a command line may hold bytes that are no text
    text = json.dumps({_SCHEMA: schema, **encode(record)}, indent=1, allow_nan=False)
    durable.write_bytes(path, f"{text}\n".encode("ascii"))


def read_record(kind: type[Record], path: Path, *, schema: int, partly: bool = False) -> Record:
    """The record in a file; CorruptError when it is missing or not one, NewerSchemaError when it is newer."""
    return decode_file(kind, read_object(path), path, schema=schema, partly=partly)


def decode_file(
    kind: type[Record], content: dict[str, JSONValue], path: Path, *, schema: int, partly: bool = False
) -> Record:
    """The record that `read_object` found in a file; errors as of `read_record`."""
    value = dict(content)
    found = value.pop(_SCHEMA, None)
    if not isinstance(found, int) or found < 1:
        raise CorruptError(f"{path}: {_SCHEMA} is missing or no number")
    if found > schema:
        raise NewerSchemaError(
            f"{path} has schema {found}, and this diffcli reads up to {schema}",
            remedy="it was written by a newer diffcli: upgrade this one",
        )
    return decode(kind, value, path, partly=partly)


def read_object(path: Path) -> dict[str, JSONValue]:
    """The JSON object in a file; CorruptError or StorageError when there is none to be read."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptError(f"{path} is missing") from error
    except OSError as error:
        raise read_error(error, path) from error
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CorruptError(f"{path} does not hold a JSON object")
    return value


def read_error(error: OSError, path: Path) -> StorageError:
    """The StorageError for a path that is there and cannot be read."""
    return StorageError(
        f"cannot read {path}: {(error.strerror or str(error)).lower()}",
        remedy="check who may read it and that the disk is there",
    )


@cache
def _decoder(kind: Any) -> _Decoder:
    """The function that turns a JSON value into a value of type `kind`."""
    if kind is JSONValue:
        return lambda value: value
    if dataclasses.is_dataclass(kind):
        return _record_decoder(kind, partly=False)
    if typing.get_origin(kind) is None:
        return _SCALARS[kind]
    return _container_decoder(typing.get_origin(kind), typing.get_args(kind))


def _container_decoder(origin: Any, arguments: tuple[Any, ...]) -> _Decoder:
    if origin is Literal:
        return _choice_decoder(arguments)
    if origin is tuple:
        return _list_decoder(_decoder(arguments[0]))
    if origin is Mapping:
        return _mapping_decoder(_decoder(arguments[1]))
    inner = [argument for argument in arguments if argument is not types.NoneType]
    return _optional_decoder(_decoder(inner[0]) if len(inner) == 1 else _kinds_decoder(inner))


@cache
def _partial_decoder(kind: Any) -> _Decoder:
    return _record_decoder(kind, partly=True)


def _record_decoder(kind: Any, *, partly: bool) -> _Decoder:
    hints = typing.get_type_hints(kind)
    fields = [(field.name, _decoder(hints[field.name])) for field in dataclasses.fields(kind)]
    names = frozenset(name for name, _ in fields)
    optional = frozenset(
        field.name for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING
    )

    def decode_record(value: Any) -> Any:
        _require(isinstance(value, dict), value, "an object")
        if not partly and not names.issuperset(value):
            raise _MismatchError(f"has a key that is not known: {min(set(value) - names)}")
        found = {}
        for name, decode_field in fields:
            if name not in value:
                if name in optional:
                    continue
                raise _MismatchError(f"lacks {name}")
            try:
                found[name] = decode_field(value[name])
            except _MismatchError as error:
                error.path.append(name)
                raise
        return kind(**found)

    return decode_record


def _optional_decoder(inner: _Decoder) -> _Decoder:
    return lambda value: None if value is None else inner(value)


def _kinds_decoder(kinds: Sequence[Any]) -> _Decoder:
    """Of records that tell by their field `kind` which of several they are."""
    decoders = {kind.kind: _decoder(kind) for kind in kinds}
    allowed = "an object whose kind is one of " + ", ".join(decoders)

    def decode_kind(value: Any) -> Any:
        _require(isinstance(value, dict) and str(value.get("kind")) in decoders, value, allowed)
        return decoders[value["kind"]](value)

    return decode_kind


def _choice_decoder(choices: tuple[Any, ...]) -> _Decoder:
    allowed = "one of " + ", ".join(map(str, choices))

    def decode_choice(value: Any) -> Any:
        _require(isinstance(value, str) and value in choices, value, allowed)
        return value

    return decode_choice


def _list_decoder(inner: _Decoder) -> _Decoder:
    def decode_list(value: Any) -> Any:
        _require(isinstance(value, list), value, "a list")
        return tuple(inner(item) for item in value)

    return decode_list


def _mapping_decoder(inner: _Decoder) -> _Decoder:
    def decode_mapping(value: Any) -> Any:
        _require(isinstance(value, dict), value, "an object")
        return {key: inner(item) for key, item in value.items()}

    return decode_mapping


def _decode_text(value: Any) -> str:
    _require(isinstance(value, str), value, "text")
    return str(value)


def _decode_flag(value: Any) -> bool:
    _require(isinstance(value, bool), value, "true or false")
    return bool(value)


def _decode_whole_number(value: Any) -> int:
    _require(type(value) is int, value, "a whole number")
    return int(value)


def _decode_number(value: Any) -> float:
    if isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    _require(type(value) in (int, float), value, "a number")
    try:
        return float(value)
    except OverflowError:
        raise _MismatchError("is a number beyond all measure") from None


def _decode_instant(value: Any) -> datetime:
    try:
        instant = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        instant = None
    _require(instant is not None and instant.tzinfo is not None, value, "a time with its zone")
    assert instant is not None
    return instant


_SCALARS: dict[Any, _Decoder] = {
    str: _decode_text,
    bool: _decode_flag,
    int: _decode_whole_number,
    float: _decode_number,
    datetime: _decode_instant,
    Path: lambda value: Path(_decode_text(value)),
}


def _require(fits: bool, value: Any, allowed: str) -> None:
    if not fits:
        shown = repr(value)
        raise _MismatchError(f"is {shown if len(shown) < 60 else shown[:57] + '...'}, not {allowed}")
