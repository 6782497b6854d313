"""A process that decodes images of a folder: their paths in on stdin, pixels out on stdout, until stdin ends.

What starts it and talks to it is `decoding_processes.py`. It must import quickly, so without torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from diffcli.data.sources.image_files import DirectoryTree, ImageTree
from diffcli.data.squares import SquareFormat, SquareRecipe, squared
from diffcli.errors import CorruptError, StorageError

# In front of JSON: its bytes. A question is a list of paths; the answer is a list of [place in the question,
# reason] for the images that cannot be used, and behind it uint8 [n, H, W, C].
LENGTH = struct.Struct(">I")


def arguments_of(root: Path, square: SquareFormat) -> tuple[str, ...]:
    """The command line that makes this process decode images of a folder as squares."""
    return (str(root.absolute()), str(square.resolution), square.recipe, str(square.channels))


def main() -> None:
    """Answer questions until the one who asks has closed stdin, or is gone."""
    root, resolution, recipe, channels = sys.argv[1:]
    square = SquareFormat(
        resolution=int(resolution), recipe=cast(SquareRecipe, recipe), channels=int(channels)
    )
    with contextlib.suppress(BrokenPipeError):
        _serve(DirectoryTree(Path(root)), square, sys.stdin.buffer, sys.stdout.buffer)
    # what may be left in stdout has no reader
    os._exit(0)


def _serve(tree: ImageTree, square: SquareFormat, questions: BinaryIO, answers: BinaryIO) -> None:
    while length := questions.read(LENGTH.size):
        paths = json.loads(questions.read(*LENGTH.unpack(length)))
        pixels = np.empty((len(paths), square.resolution, square.resolution, square.channels), dtype=np.uint8)
        bad = []
        for place, path in enumerate(paths):
            try:
                pixels[place] = squared(tree.image(path), square)
            except (CorruptError, StorageError) as error:
                bad.append((place, error.what))
        told = json.dumps(bad).encode()
        answers.write(LENGTH.pack(len(told)) + told)
        answers.write(pixels.data)
        answers.flush()


if __name__ == "__main__":
    main()
