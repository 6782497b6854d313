"""Memory of `diffcli sample` by the number of images: `python benchmarks/sampling_memory.py [--out FILE]`.

Three questions, each by processes of its own for 1,000, 10,000 and 50,000 images: what `sample` takes that
draws them all; what it takes to top up an archive of four fifths of them; and what joining takes, of images
of 64x64x3. The network is tiny and knows ten classes, the images of the first two are of 8x8. Memory is the
largest that was resident, as the system counts it for each process.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from surroundings import commit, machine

_COUNTS = (1_000, 10_000, 50_000)
_PRESET = """
[data]
name = "digits"
resolution = 8
channels = 1
[model]
channels = 32
channel_mult = [1]
res_blocks = 1
attention_resolutions = []
classes = 10
[diffusion]
steps = 40
schedule = "cosine"
variance = "learned_range"
objective = "hybrid"
[training]
steps = 1
batch_size = 8
ema_rates = [0.9]
"""
_ON_THE_CPU = ("--device", "cpu", "--threads", "1")
_DRAW = ("sample", "run-1", "--ddim", "2", "--batch-size", "500", *_ON_THE_CPU)
# the parts of an archive that is to be joined, written without waiting for the disk, and their joining
_PLAN = """
import sys
from pathlib import Path
import numpy as np
from diffcli.sampling.archive import ArchiveParts, ArchivePlan, write_archive
count = int(sys.argv[1])
plan = ArchivePlan(count=count, height=64, width=64, channels=3, batch_size=64)
parts = ArchiveParts(Path("joining", "parts"), plan)
"""
_FILL = f"""{_PLAN}
parts.begin("benchmark")
images = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
for batch in range(plan.batches):
    Path(parts.directory, f"batch-{{batch:06d}}.bin").write_bytes(images[: len(plan.images(batch))].tobytes())
"""
_JOIN = f"""{_PLAN}
write_archive(Path("joining", "joined.npz"), plan, parts.read(), None)
"""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a process took; file_bytes: the size of the archive that it wrote."""

    count: int
    peak_bytes: int
    seconds: float
    file_bytes: int


@dataclass(frozen=True, kw_only=True)
class Question:
    """What was asked, and the answer for each number of images."""

    what: str
    answers: Sequence[Taken]


def main() -> None:
    """Make a run in a temporary directory, draw and join, print the table."""
    options = parsed()
    counts = [max(1000, int(count * options.scale)) for count in _COUNTS]
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        place = Path(directory)
        make_run(place)
        questions = [
            Question(what="draw them all", answers=[drawn(place, count) for count in counts]),
            Question(what="top up from four fifths", answers=[topped_up(place, count) for count in counts]),
            Question(what="join 64x64x3", answers=[joined(place, count) for count in counts]),
        ]
        idle = measured(place, "-c", "import diffcli.commands.sample")
    text = report(questions, idle)
    print(text, end="")
    if options.out:
        options.out.write_text(text)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="less images, for a quick look")
    parser.add_argument("--directory", type=Path, help="where the images go (default: the system's)")
    parser.add_argument("--out", type=Path, help="a file for the table")
    return parser.parse_args()


# ---- the three ----


def make_run(place: Path) -> None:
    """A run of one step: what its images look like does not matter."""
    (place / "tiny.toml").write_text(_PRESET)
    measured(place, "-m", "diffcli", "prepare", "digits")
    measured(place, "-m", "diffcli", "train", "--preset", "./tiny.toml", *_ON_THE_CPU)


def drawn(place: Path, count: int) -> Taken:
    """All images of a seed, none of which is known."""
    line = (*_DRAW, "--num", str(count), "--force", "--out", f"drawn-{count}")
    return taken(count, lambda: measured(place, "-m", "diffcli", *line), place / f"drawn-{count}")


def topped_up(place: Path, count: int) -> Taken:
    """The rest of the images of a seed, which is another for each count."""
    few, line = count * 4 // 5, (*_DRAW, "--seed", str(count))
    measured(place, "-m", "diffcli", *line, "--num", str(few))
    line = (*line, "--num", str(count), "--out", f"topped-{count}")
    return taken(count, lambda: measured(place, "-m", "diffcli", *line), place / f"topped-{count}")


def joined(place: Path, count: int) -> Taken:
    """Images that nothing compresses, from parts to an archive."""
    measured(place, "-c", _FILL, str(count))
    joining = taken(count, lambda: measured(place, "-c", _JOIN, str(count)), place / "joining")
    shutil.rmtree(place / "joining")
    return joining


def taken(count: int, work: Callable[[], int], directory: Path) -> Taken:
    started = time.monotonic()
    peak_bytes = work()
    seconds = time.monotonic() - started
    (archive,) = directory.glob("*.npz")
    return Taken(count=count, peak_bytes=peak_bytes, seconds=seconds, file_bytes=archive.stat().st_size)


def measured(place: Path, *arguments: str) -> int:
    """Run Python to its end, and give the most memory that was resident, bytes.

    Linux counts what the process was before, a copy of this one: so this one imports next to nothing.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments[:3])} ended with {process.returncode}:\n{said}")
    # macOS counts in bytes
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# ---- what came out ----


def report(questions: Sequence[Question], idle_bytes: int) -> str:
    lines = [
        f"Memory of sampling, {datetime.now(UTC).isoformat(timespec='seconds')}, commit {commit()}",
        f"{machine()}; python {platform.python_version()}",
        f"torch {metadata.version('torch')}, numpy {metadata.version('numpy')}",
        f"load of the machine while this ran: {os.getloadavg()[0]:.1f}",
        f"a process that only imports the program: {megabytes(idle_bytes)} MB",
        "",
        f"{'':28}{'images':>10}{'peak MB':>10}{'seconds':>10}{'archive MB':>12}",
    ]
    for question in questions:
        lines += [row(question.what, answer) for answer in question.answers]
    return "\n".join(lines) + "\n"


def row(what: str, answer: Taken) -> str:
    return (
        f"{what:28}{answer.count:10,}{megabytes(answer.peak_bytes):>10}{answer.seconds:10.1f}"
        f"{megabytes(answer.file_bytes):>12}"
    )


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f}"


if __name__ == "__main__":
    main()
