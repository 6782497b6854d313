"""Files for other programs: state dicts under the published names, float32, in the published order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from diffcli import durable


def original_name(kind: str, step: int, *, suffix: str) -> str:
    """The original programs' name of a file: `model`, `opt` or `ema_0.9999`, and the step.

    Source: tests/golden/README.md, section 4b.
    """
    return f"{kind}_{step:06d}{suffix}" if kind.startswith("ema") else f"{kind}{step:06d}{suffix}"


def write_pt(path: Path, content: Mapping[str, object]) -> None:
    """What torch.save makes of a state dict or an optimizer's state; StorageError when the disk refuses."""
    with durable.storage_errors(path):
        try:
            torch.save(OrderedDict(content), path)
        except RuntimeError as error:
            # how torch tells of a disk that is full
            raise OSError(str(error)) from error


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A .safetensors file; StorageError when the disk refuses."""
    with durable.storage_errors(path):
        try:
            save_file(dict(tensors), path, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        durable.give_usual_mode(path)


def by_itself(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, contiguous, each with memory of its own: both formats keep all that it lies in."""
    alone: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        packed = tensor.contiguous()
        storage = packed.untyped_storage()
        if storage.nbytes() != packed.nbytes or storage.data_ptr() in taken:
            packed = packed.clone()
        taken.add(packed.untyped_storage().data_ptr())
        alone[name] = packed
    return alone
