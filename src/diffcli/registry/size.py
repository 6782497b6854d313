"""What runs take on disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def size_on_disk(path: Path | str) -> int:
    """The bytes of a file, or of all files under a directory; what vanishes meanwhile counts nothing."""
    with contextlib.suppress(OSError):
        if not os.path.isdir(path) or os.path.islink(path):  # noqa: PTH112, PTH114 - called for every run listed
            return os.lstat(path).st_size
        with os.scandir(path) as entries:
            return sum(
                size_on_disk(entry.path)
                if entry.is_dir(follow_symlinks=False)
                else entry.stat(follow_symlinks=False).st_size
                for entry in entries
            )
    return 0
