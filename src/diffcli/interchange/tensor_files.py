"""Files of tensors that other programs wrote, .pt and .safetensors, read as data and never as programs."""

from __future__ import annotations

import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from diffcli.errors import CorruptError, DiffcliError, MissingError, StorageError, UsageError
from diffcli.interchange.pickle_check import MOST_BYTES, AskedForError, check_pickles
from diffcli.models.tensor_file import is_text, load_tensors

_ZIP_MAGIC = b"PK\x03\x04"
# the number with which torch.save began its files before version 1.6, as a pickle
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_PICKLE_MAGIC = b"\x80"
# a safetensors file begins with the length of its header, 8 bytes, and the header itself
_SAFETENSORS_BRACE = slice(8, 9)
_HEAD_BYTES = 512
_TORCH_INDEX = "/data.pkl"
_PROGRAM = "/code/"
# before 1.6: the magic number, the version, the machine, what was saved, and the keys of its storages
_LEGACY_PICKLES = 5
# how the safe unpickler names what a file asks for and may not have
_FORBIDDEN = re.compile(r"GLOBAL ([\w.]+)|function ([\w.]+)|class ([\w.]+)")
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory")
_PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
_DAMAGED_REMEDY = "get it again, or compare its size with that at the source"
_WHAT_IS_READ = "a state dict as torch.save writes it (.pt), or a .safetensors file"


def read_weights(path: Path, *, besides: str = "") -> dict[str, Tensor]:
    """The named tensors of a state dict: floating-point, on the CPU, in the file's order, not yet copied.

    besides: how the names of what is no weight end, which is left out whatever it is; "" leaves out nothing.
    MissingError, StorageError; UsageError for a sound file of something else; CorruptError for a damaged one,
    and for one that would run code, of which nothing is run.
    """
    content = read_content(path)
    if is_optimizer_state(content):
        raise UsageError(
            f"{path} is the state of an optimizer, not weights",
            remedy="give the model or EMA file beside it, or the directory of all of them",
        )
    if not isinstance(content, Mapping) or not content:
        raise _no_state_dict(path, _described(content))
    if besides:
        content = {name: value for name, value in content.items() if not str(name).endswith(besides)}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise _no_state_dict(path, f"{_shown(name)} is {_described(value)}")
        if not _is_plain(value):
            raise CorruptError(
                f"{path}: {_shown(name)} is no plain floating-point tensor",
                where=f"{value.dtype}, {value.layout}, on {value.device}",
                remedy="diffcli reads float32, float16 and bfloat16",
            )
    return {name: tensor.detach() for name, tensor in content.items()}


def read_content(path: Path) -> object:
    """Whatever a file of tensors holds, its tensors on the CPU; errors as above."""
    head = _head(path)
    if head.startswith(_ZIP_MAGIC):
        _require_torch_archive(path)
        _require_plain(path, _index(path), pickles=1)
        return _load(path, mapped=True)
    if head.startswith(_LEGACY_MAGIC):
        _require_plain(path, _beginning(path), pickles=_LEGACY_PICKLES)
        return _load(path, mapped=False)
    if head[_SAFETENSORS_BRACE] == b"{" or path.suffix == ".safetensors":
        return _load_safetensors(path)
    raise CorruptError(
        f"{path} is no checkpoint: it is {_look(head)}",
        remedy=f"diffcli reads {_WHAT_IS_READ}; nothing of this file was loaded",
    )


def is_optimizer_state(content: object) -> bool:
    """Whether it is what an optimizer of PyTorch gives as its state."""
    return isinstance(content, Mapping) and {"state", "param_groups"} <= set(content)


def _head(path: Path) -> bytes:
    try:
        # to open a pipe would wait for someone to write into it
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path} is no regular file", remedy=f"give {_WHAT_IS_READ}")
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise MissingError(f"there is no file {path}") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error


def _look(head: bytes) -> str:
    """What a file is that begins like this."""
    text = head.lstrip().lower()
    if not head:
        return "empty"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, perhaps an error message in place of the file"
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of git LFS, not the file that it stands for"
    if head.startswith(_PICKLE_MAGIC):
        return "a Python pickle that torch.save did not write"
    return "neither a file of torch.save nor a safetensors file"


def _require_torch_archive(path: Path) -> None:
    """Refuse a zip archive that torch.save did not write, before anything of it is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise _damaged(path, "the directory of its parts, at its end, is missing") from error
    names = [member.filename for member in members]
    if not any(name.endswith(_TORCH_INDEX) for name in names):
        kind = "a NumPy archive" if any(name.endswith(".npy") for name in names) else "a zip archive"
        raise CorruptError(
            f"{path} is no checkpoint: it is {kind} that torch.save did not write",
            remedy=f"diffcli reads {_WHAT_IS_READ}",
        )
    if any(_PROGRAM in name for name in names):
        raise CorruptError(
            f"{path} is a program of TorchScript, not weights",
            where="such a file must be run to be read; nothing of it was run",
            remedy="get the same weights as a plain state dict",
        )
    # torch.save stores its parts as they are: what unpacks to more than it is was made to do harm
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CorruptError(
            f"{path} has compressed parts, which torch.save does not write",
            remedy="nothing of it was unpacked",
        )


def _index(path: Path) -> bytes:
    """The pickle in an archive of torch.save, as torch itself will find it."""
    try:
        with path.open("rb") as file:
            return torch._C.PyTorchFileReader(file).get_record(_TORCH_INDEX.lstrip("/"))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except RuntimeError as error:
        raise _unreadable(path, str(error)) from error


def _beginning(path: Path) -> bytes:
    """As much of a file as the pickles before its numbers may take."""
    with path.open("rb") as file:
        return file.read(MOST_BYTES)


def _require_plain(path: Path, content: bytes, *, pickles: int) -> None:
    """Refuse pickles that ask for more than tensors and tables, or would become far larger than they are."""
    if pickles == 1 and len(content) > MOST_BYTES:
        raise _damaged(path, f"its list of tensors takes {len(content):,} bytes, which no network's does")
    try:
        check_pickles(content, pickles)
    except AskedForError as error:
        raise _asks_for(path, str(error)) from error
    # of a damaged pickle anything may be wrong
    except Exception as error:
        raise _damaged(path, "it is damaged or incomplete") from error


def _load(path: Path, *, mapped: bool) -> object:
    """What torch.save wrote, without calling anything that the file names."""
    # it maps only files whose names are text, and takes one of the other format for what it is called
    mapped = mapped and is_text(path) and path.suffix != ".safetensors"
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content: object = torch.load(
                str(path) if mapped else file, map_location="cpu", weights_only=True, mmap=mapped
            )
    except OSError as error:
        raise StorageError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    # a hostile or damaged file may end in any exception of the unpickler
    except Exception as error:
        raise _unreadable(path, str(error)) from error
    return content


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(path)
    except SafetensorError as error:
        raise _damaged(path, f"it is no safetensors file: {error}") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error


def _unreadable(path: Path, said: str) -> DiffcliError:
    """What an exception of the unpickler means; its own text advises what is bad for the user's health."""
    forbidden = _FORBIDDEN.search(said)
    if forbidden:
        return _asks_for(path, next(group for group in forbidden.groups() if group))
    if any(words in said for words in _OUT_OF_MEMORY):
        return DiffcliError(f"{path} takes more memory than there is", where=_first_line(said))
    return _damaged(path, "it is damaged or incomplete")


def _asks_for(path: Path, name: str) -> CorruptError:
    return CorruptError(
        f"{path} is no plain state dict: it asks for {name}",
        where="such a file can run any program when it is loaded; nothing of it was run",
        remedy="use it only through the program that wrote it, and only if you trust its source",
    )


def _damaged(path: Path, reason: str) -> CorruptError:
    return CorruptError(f"cannot read {path}: {reason}", remedy=_DAMAGED_REMEDY)


def _no_state_dict(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"{path} is no state dict of a network: {reason}",
        remedy="diffcli reads a flat table from parameter names to tensors; "
        "take that out of it with the program that wrote it",
    )


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.device.type == "cpu" and tensor.dtype in _PRECISIONS


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        keys = ", ".join(_shown(key) for key in list(value)[:3])
        return f"a table of {keys}{', ...' if len(value) > 3 else ''}" if value else "an empty table"
    return f"a {type(value).__name__}"


def _shown(key: object) -> str:
    text = key if isinstance(key, str) else f"a {type(key).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200]
