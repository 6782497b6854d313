"""Numbers, text, lists, dictionaries and uint8 arrays out of a pickle, of which nothing is ever run.

A pickle is a program for a small machine that can call anything by its name. Here a program is read one
instruction at a time, only the instructions below exist, and the only things that have a name are the three
that stand for a numpy array of bytes.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Plain = int | str | bytes | bool | None | list[Any] | dict[Any, Any] | NDArray[np.uint8]

_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_BYTE_TYPES = ("u1", "uint8")
# ten times what a batch of CIFAR-10 has; each may take a hundred bytes of memory for its one
_MOST_INSTRUCTIONS = 500_000
_LARGEST_NUMBER = 2**63
_MOST_SIDES = 8
_SHOWN_LETTERS = 40


class NotPlainError(Exception):
    """What a pickle holds besides plain values, or that it is damaged."""


def read_plain_pickle(content: bytes) -> Plain:
    """The value of a pickle as Python 2 wrote it with protocol 2, or Python 3 with 3 or 4.

    Text of Python 2 becomes str, each byte one character of latin-1. NotPlainError for anything but plain
    values, and for more of them than a batch of images has.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            machine.step(opcode.name, argument)
    except NotPlainError:
        raise
    except Exception as error:  # damaged programs fail in any way
        raise NotPlainError(str(error).partition("\n")[0][:100] or type(error).__name__) from error
    return machine.value()


class _Mark:
    """Where the items of a list, tuple or dictionary begin on the stack."""


_MARK = _Mark()


class _Name:
    """One of the three things that may be called, or are arguments of a call."""

    def __init__(self, name: str) -> None:
        self.name = name


class _ByteType:
    """The dtype of unsigned bytes."""


class _Array:
    """An array whose content is not known yet, or is."""

    content: NDArray[np.uint8] | None = None


class _Machine:
    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._steps = 0
        self._stopped = False

    def step(self, name: str, argument: Any) -> None:
        self._steps += 1
        if self._steps > _MOST_INSTRUCTIONS:
            raise NotPlainError(f"it has more than {_MOST_INSTRUCTIONS:,} instructions")
        if name in _LITERALS:
            if isinstance(argument, int) and abs(argument) >= _LARGEST_NUMBER:
                raise NotPlainError("a number of it is too large")
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        else:
            raise NotPlainError(f"it holds an instruction {name}")

    def value(self) -> Plain:
        if not self._stopped or len(self._stack) != 1:
            raise NotPlainError("it has no end")
        value = _finished(self._stack[0])
        if not isinstance(value, int | str | bytes | list | dict | np.ndarray | None):
            raise NotPlainError("it holds no value")
        return value

    def stop(self, _argument: Any) -> None:
        self._stopped = True

    def skip(self, _argument: Any) -> None:
        """Nothing that counts here, such as the protocol."""

    def remember(self, place: Any) -> None:
        self._memo[len(self._memo) if place is None else place] = self._stack[-1]

    def recall(self, place: Any) -> None:
        self._stack.append(self._memo[place])

    def name(self, argument: Any) -> None:
        self._stack.append(_admitted(*str(argument).split(" ", 1)))

    def name_on_stack(self, _argument: Any) -> None:
        attribute, module = self._stack.pop(), self._stack.pop()
        self._stack.append(_admitted(_text(module), _text(attribute)))

    def few(self, count: int) -> None:
        items = tuple(self._stack[len(self._stack) - count :])
        if len(items) != count:
            raise NotPlainError("it takes what is not there")
        del self._stack[len(self._stack) - count :]
        self._stack.append(items)

    def tuple_since_mark(self, _argument: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def append(self, _argument: Any) -> None:
        item = self._stack.pop()
        self._top(list).append(item)

    def appends(self, _argument: Any) -> None:
        items = self._since_mark()
        self._top(list).extend(items)

    def set_item(self, _argument: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._top(dict)[_key(key)] = value

    def set_items(self, _argument: Any) -> None:
        items = self._since_mark()
        found = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            found[_key(key)] = value

    def call(self, _argument: Any) -> None:
        arguments, called = self._stack.pop(), self._stack.pop()
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise NotPlainError("it calls what has no name")
        if called.name == "_reconstruct":
            self._stack.append(_Array())
        elif called.name == "dtype" and arguments and _text(arguments[0]) in _BYTE_TYPES:
            self._stack.append(_ByteType())
        else:
            # what they are is not told: a few bytes of a pickle can hold values of gigabytes as text
            raise NotPlainError(f"it calls {called.name} with other arguments")

    def build(self, _argument: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, _Array):
            target.content = _array(state)
        elif not isinstance(target, _ByteType):
            raise NotPlainError("it changes what is no array")

    def _since_mark(self) -> list[Any]:
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
        items = self._stack[place + 1 :]
        del self._stack[place:]
        return items

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise NotPlainError(f"it fills what is no {kind.__name__}")
        return self._stack[-1]


def _admitted(module: str, attribute: str) -> _Name:
    if module not in _MODULES or attribute not in ("_reconstruct", "ndarray", "dtype"):
        raise NotPlainError(f"it asks for {module[:_SHOWN_LETTERS]}.{attribute[:_SHOWN_LETTERS]}")
    return _Name(attribute)


def _key(key: Any) -> int | str | bytes:
    if not isinstance(key, int | str | bytes):
        raise NotPlainError("a key is neither number nor text")
    return key


def _text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise NotPlainError("it names something by what is no text")
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _array(state: Any) -> NDArray[np.uint8]:
    """The array of a state (version, shape, dtype, by columns, bytes)."""
    _, shape, kind, by_columns, content = state
    if isinstance(content, str):
        content = content.encode("latin-1")
    whole = isinstance(kind, _ByteType) and isinstance(content, bytes) and by_columns is False
    sides = isinstance(shape, tuple) and len(shape) <= _MOST_SIDES
    if not whole or not sides or not all(type(side) is int and side >= 0 for side in shape):
        raise NotPlainError("an array of it is not of bytes by rows")
    if math.prod(shape) != len(content):
        raise NotPlainError(f"an array of it has {len(content)} bytes for the shape {shape}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _finished(value: Any) -> Any:
    """The value with its arrays in place of what stands for them; only at the top and one level below."""
    if isinstance(value, _Array):
        if value.content is None:
            raise NotPlainError("an array of it has no content")
        return value.content
    if isinstance(value, dict):
        return {key: _finished(item) if isinstance(item, _Array) else item for key, item in value.items()}
    return value


_LITERALS = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "LONG4"}
    | {"BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.skip,
    "FRAME": _Machine.skip,
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "MEMOIZE": _Machine.remember,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_on_stack,
    "TUPLE": _Machine.tuple_since_mark,
    "TUPLE1": lambda machine, _: machine.few(1),
    "TUPLE2": lambda machine, _: machine.few(2),
    "TUPLE3": lambda machine, _: machine.few(3),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "STOP": _Machine.stop,
}
