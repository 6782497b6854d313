"""Named tensors in a safetensors file."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load, load_file
from torch import Tensor


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU; SafetensorError for another file, or OSError."""
    # a path that is no text, which load_file does not take
    return load_file(path) if is_text(path) else load(path.read_bytes())


def is_text(path: Path) -> bool:
    """Whether a path can be handed to libraries that take text only."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
