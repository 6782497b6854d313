"""What all pictures by matplotlib share."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING

from diffcli import durable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 120


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG; StorageError when that fails."""
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    durable.write_bytes(path, encoded.getvalue())
