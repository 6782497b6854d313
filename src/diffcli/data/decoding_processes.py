"""Small images decoded in processes of their own: in threads they wait for one another.

A PNG of 32x32 is 60 us of work, for half of which it holds Python's lock; taking turns with the lock eats
what a second thread gains, and the thread that trains waits for it too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from diffcli.data.decoding_worker import LENGTH, arguments_of
from diffcli.data.squares import BadImage, PixelReader, SquareFormat, decoding_threads
from diffcli.errors import DiffcliError
from diffcli.images.decode import printable

# Images of a part, so that asking for it costs little beside decoding it.
FEWEST_AT_ONCE = 16
_SMALL_FILE_BYTES = 40_000
# as many images as threads decode in the time that starting a process takes
_WORTH_STARTING_IMAGES = 4096
# more than feed any training on such images, each of 20 MB besides what they share
_MOST_PROCESSES = 8
_PATIENCE_SECONDS = 5.0


def worth_processes(mean_file_bytes: float) -> bool:
    """Whether the images of a folder decode faster in processes than in threads.

    Measured on 2 cores, beside threads: small PNG and JPEG, and PNG of 128x128 (38 kB), come 1.1 to 1.5 times
    as fast, and cost the process that trains a tenth of the time; at 140 kB (PNG of 256x256) they are as fast
    as in threads, which then hardly hold the lock.
    """
    return mean_file_bytes < _SMALL_FILE_BYTES


class DecodingProcesses:
    """The processes that decode images of one folder, one for each core. Thread-safe.

    They start when a few thousand images have been read, and end with this object, or with this process
    however that ends. Where none can be started there is none, and threads decode on.
    """

    def __init__(self, root: Path, square: SquareFormat) -> None:
        self._root = root
        self._square = square
        self._images = 0
        self._begun = False
        self._lock = threading.Lock()
        self._free: SimpleQueue[_DecodingProcess] = SimpleQueue()
        self._running = False

    def running(self, images: int) -> bool:
        """Whether they decode by now; images: about to be read."""
        if not self._begun and self._counted(images):
            # nothing waits for it, not even the end of the program
            threading.Thread(target=self._start, name="start-decoding", daemon=True).start()
        return self._running

    def fill(self, reader: PixelReader, indices: Sequence[int], out: NDArray[np.uint8]) -> list[BadImage]:
        """As `Fill`, by one of the processes; DiffcliError when it has ended."""
        paths = [reader.name(index) for index in indices]
        process = self._free.get()
        try:
            reasons = process.decode(paths, out)
        finally:
            # also one that has ended, so that nobody waits in vain
            self._free.put(process)
        return [BadImage(index=indices[place], reason=reason) for place, reason in reasons]

    def _counted(self, images: int) -> bool:
        """Whether these are the images that make it worth while to start."""
        with self._lock:
            self._images += images
            if self._begun or self._images < _WORTH_STARTING_IMAGES:
                return False
            self._begun = True
            return True

    def _start(self) -> None:
        # inherited: only the end of their owner ends them, whoever else signals the whole group or session
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        processes: list[_DecodingProcess] = []
        weakref.finalize(self, _end, processes)
        nothing = np.empty(0, dtype=np.uint8)
        try:
            for _ in range(min(decoding_threads(), _MOST_PROCESSES)):
                processes.append(_DecodingProcess(self._root, self._square))
            for process in processes:
                # answered when it has imported what it needs
                process.decode((), nothing)
        except (OSError, DiffcliError):
            _end(processes)
            return
        for process in processes:
            self._free.put(process)
        self._running = True


class _DecodingProcess:
    """One of the processes; used by one thread at a time."""

    def __init__(self, root: Path, square: SquareFormat) -> None:
        """Start it; OSError when it cannot be."""
        self._root = root
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "diffcli.data.decoding_worker", *arguments_of(root, square)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # one that cannot work is done without
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions, self._answers = self._process.stdin, self._process.stdout

    def decode(self, paths: Sequence[str], out: NDArray[np.uint8]) -> list[tuple[int, str]]:
        """Fill uint8 [n, H, W, C]; for each image that cannot be used its place and the reason."""
        question = json.dumps(paths).encode()
        try:
            self._write(LENGTH.pack(len(question)) + question)
            (length,) = LENGTH.unpack(self._read(LENGTH.size))
            bad = json.loads(self._read(length))
            self._read_into(out.reshape(-1).data)
        except (OSError, EOFError) as error:
            raise self._lost() from error
        return [(place, reason) for place, reason in bad]

    def close(self) -> None:
        """Let it end."""
        for pipe in (self._questions, self._answers):
            with contextlib.suppress(OSError):
                pipe.close()

    def wait(self) -> None:
        """Wait until it has."""
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _lost(self) -> DiffcliError:
        self.wait()
        status = self._process.returncode
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return DiffcliError(
            f"a process that decodes images has ended, {how}",
            where=f"images of {printable(self._root)}",
            remedy="the system kills processes when memory runs out; if that was it, free some and try again",
        )

    def _write(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            left = left[self._questions.write(left) :]

    def _read(self, length: int) -> bytes:
        content = bytearray(length)
        self._read_into(memoryview(content))
        return bytes(content)

    def _read_into(self, left: memoryview) -> None:
        while left:
            got = self._answers.readinto(left)  # type: ignore[attr-defined]
            if not got:
                raise EOFError
            left = left[got:]


def _end(processes: list[_DecodingProcess]) -> None:
    for process in processes:
        process.close()
    for process in processes:
        process.wait()
    processes.clear()
