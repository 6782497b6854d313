"""What a pickle would call when it is loaded, found out without loading it.

torch's safe unpickler runs no code of a file's choice, but does call bytearray(N) for any N a file names.
"""

from __future__ import annotations

import io
import pickletools
from dataclasses import dataclass

import torch

# a state dict has about 200 bytes for each of its tensors, of which there are some thousand
MOST_BYTES = 4 * 2**20
_MOST_CALLS = 50_000
_MOST_ITEMS = 64
_CALLED = frozenset(
    {
        "collections.OrderedDict",
        "torch.Size",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        # read so that it can be told which tensor has no numbers
        "torch._utils._rebuild_meta_tensor_no_storage",
    }
)
_TUPLES = frozenset({"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
_GROWING = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS"})
_SCALARS = {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_TEXTS = {"BINUNICODE", "SHORT_BINSTRING"}
_PLAIN = _SCALARS | _TEXTS | {"PROTO", "STOP", "MARK", "EMPTY_LIST", "EMPTY_DICT", "BINPERSID"}


class AskedForError(Exception):
    """A pickle names what no state dict needs; its text is that name."""


@dataclass(kw_only=True, eq=False)
class _Value:
    """What stands for a value: the name of a global, and for containers how much they hold."""

    name: str = ""
    length: int = 0
    items: tuple[_Value, ...] = ()


_MARK = _Value(name="mark")


def check_pickles(content: bytes, count: int) -> None:
    """Raise AskedForError when the first `count` pickles in `content` ask for what no state dict needs.

    ValueError, LookupError for what is no such pickle, or would grow out of all proportion to its size.
    """
    stream = io.BytesIO(content)
    for _ in range(count):
        _Walk().over(stream)


class _Walk:
    """One pickle gone through with stand-ins for its values."""

    def __init__(self) -> None:
        self._stack: list[_Value] = []
        self._memo: dict[int, _Value] = {}
        self._calls = 0

    def over(self, stream: io.BytesIO) -> None:
        for opcode, argument, _ in pickletools.genops(stream):
            self._step(opcode, argument)

    def _step(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        stack = self._stack
        if opcode.name in ("BINPUT", "LONG_BINPUT") and isinstance(argument, int):
            self._memo[argument] = stack[-1]
        elif opcode.name in ("BINGET", "LONG_BINGET") and isinstance(argument, int):
            stack.append(self._memo[argument])
        elif opcode.name == "GLOBAL":
            stack.append(_allowed(str(argument)))
        elif opcode.name in _TUPLES:
            items = self._taken(opcode)
            _require_few(len(items))
            stack.append(_Value(length=len(items), items=tuple(items)))
        elif opcode.name in _GROWING:
            items = self._taken(opcode)
            if pickletools.markobject not in opcode.stack_before:
                stack.append(items.pop(0))
            stack[-1].length += len(items)
        elif opcode.name == "REDUCE":
            self._call(*self._taken(opcode))
        elif opcode.name == "BUILD":
            target, state = self._taken(opcode)
            _require_few(state.length)
            stack.append(target)
        elif opcode.name in _PLAIN:
            self._taken(opcode)
            stack.extend(_MARK if kind is pickletools.markobject else _Value() for kind in opcode.stack_after)
        else:
            raise ValueError(f"no state dict has {opcode.name}")

    def _taken(self, opcode: pickletools.OpcodeInfo) -> list[_Value]:
        """What an opcode takes from the stack, or all down to the last mark."""
        if pickletools.markobject in opcode.stack_before:
            taken: list[_Value] = []
            while (value := self._stack.pop()) is not _MARK:
                taken.append(value)
            return taken[::-1]
        return [self._stack.pop() for _ in opcode.stack_before][::-1]

    def _call(self, called: _Value, arguments: _Value) -> None:
        self._calls += 1
        if called.name not in _CALLED or self._calls > _MOST_CALLS:
            raise ValueError("no state dict makes this call")
        # a long list is cheap to name again, and each call would copy it
        for argument in arguments.items:
            _require_few(argument.length)
        _require_few(arguments.length)
        self._stack.append(_Value())


def _allowed(pair: str) -> _Value:
    module, _, name = pair.partition(" ")
    full = f"{module}.{name}"
    # named to say what kind of numbers, never called
    is_kind = module == "torch" and (
        name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype)
    )
    if not is_kind and full not in _CALLED:
        raise AskedForError(full)
    return _Value(name=full)


def _require_few(length: int) -> None:
    if length > _MOST_ITEMS:
        raise ValueError(f"no state dict has {length} items here")
