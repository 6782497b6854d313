"""Images per second that training can read: `python benchmarks/reading.py [--rounds 7] [--out FILE]`.

Every kind of dataset is read through the same batches as in training, and takes turns with something to
compare it with: a bare gather from the memory map, plain decoding by Pillow, or a loader of the kind that the
papers' programs have (torch's DataLoader, one worker, Pillow, float32 images made on the host). Other load on
the machine meets both; so ratios count, and CPU seconds more than seconds.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from surroundings import commit, machine
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from diffcli.commands.prepare import FolderRequest, prepare_folder
from diffcli.config.sections import DataConfig
from diffcli.data.batches import BatchSource, Prefetcher
from diffcli.data.dataset import Dataset, open_dataset

_SEED = 0
# a turn is short beside changes of the load
_ENOUGH_SECONDS = 0.5
_WARMING_BATCHES = 8
_FOREVER = 10**12


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Images, the seconds that they took, and the seconds of CPU time of this process."""

    images: int
    seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.images / self.seconds

    @property
    def per_cpu_second(self) -> float:
        return self.images / self.cpu_seconds


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Something that reads images for a while whenever it is called."""

    name: str
    read: Callable[[], Reading]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two that take turns; goal: what is asked of ours, as it is said in the report."""

    ours: Subject
    other: Subject
    goal: str


def main() -> None:
    """Make the images in a temporary directory, read them, print the table."""
    options = parsed()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory, ExitStack() as kept_open:
        comparisons = prepared(kept_open, Path(directory), options.scale)
        rounds = [
            [(each.ours.read(), each.other.read()) for each in comparisons] for _ in range(options.rounds)
        ]
        waits = waiting(Path(directory), options.scale)
    text = report(comparisons, rounds, waits)
    print(text, end="")
    if options.out:
        options.out.write_text(text)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the usual number of images")
    parser.add_argument(
        "--directory", type=Path, default=Path(), help="where to make them, on the disk in question"
    )
    parser.add_argument("--out", type=Path, help="file for the report")
    return parser.parse_args()


# ---- what is read ----


def prepared(kept_open: ExitStack, directory: Path, scale: float) -> list[Comparison]:
    """All kinds of datasets, each with what it is compared with."""
    small, large = directory / "small", directory / "large"
    photographs(small, count=int(5000 * scale), size=32, suffix="png")
    photographs(large, count=int(600 * scale), size=256, suffix="jpg")
    packed = {
        size: packed_noise(directory, count=int(count * scale), size=size)
        for size, count in ((32, 50_000), (64, 40_000))
    }
    shards = prepare_folder(FolderRequest(home=directory / "data", source=large, size=256)).splits[0].path
    files = sorted(large.iterdir())
    content = [path.read_bytes() for path in files]
    return [
        *(
            Comparison(
                ours=batches(kept_open, f"packed {size}x{size}, batch {batch}", packed[size], size, batch),
                other=gather(packed[size], batch),
                goal=f"{goal:,}/s",
            )
            for size, goal in ((32, 1_000_000), (64, 400_000))
            for batch in (128, 1024)
        ),
        Comparison(
            ours=batches(kept_open, "shards 256x256 JPEG, batch 64", shards, 256, 64),
            other=Subject(name="Pillow decodes them, one thread", read=lambda: plain_decoding(content)),
            goal="700/s a core",
        ),
        Comparison(
            ours=batches(kept_open, "folder of 32x32 PNG, batch 128", small, 32, 128),
            other=loader(small, 128),
            goal="2 x the loader",
        ),
        Comparison(
            ours=batches(kept_open, "folder of 256x256 JPEG, batch 64", large, 256, 64),
            other=loader(large, 64),
            goal="2 x the loader",
        ),
    ]


def photographs(directory: Path, *, count: int, size: int, suffix: str) -> None:
    """Files with detail at all scales, as photographs have it."""
    directory.mkdir()
    random = np.random.default_rng(_SEED)
    kinds = [detailed(random, size) for _ in range(min(count, 40))]
    for number in range(count):
        image = Image.fromarray(np.roll(kinds[number % len(kinds)], number, axis=(0, 1)))
        image.save(directory / f"{'abcd'[number % 4]}_{number:06d}.{suffix}", quality=95)


def detailed(random: np.random.Generator, size: int) -> NDArray[np.uint8]:
    pixels = np.full((size, size, 3), 128.0)
    side = 4
    while side <= size:
        noise = random.normal(size=(side, side, 3)) * 120 / side**0.5
        layers = [Image.fromarray(noise[..., channel].astype(np.float32)) for channel in range(3)]
        pixels += np.stack(
            [np.asarray(layer.resize((size, size), Image.Resampling.BICUBIC)) for layer in layers], 2
        )
        side *= 2
    return pixels.clip(0, 255).astype(np.uint8)


def packed_noise(directory: Path, *, count: int, size: int) -> Path:
    """A packed dataset of a few images, over and over: what is in them costs nothing to read."""
    from diffcli.commands.course import preparing
    from diffcli.commands.output_form import OutputChoices, OutputForm
    from diffcli.commands.preparation import prepare
    from diffcli.data.sources.digits import DigitsSource
    from diffcli.records.datasets import UNHEARD

    source = DigitsSource("train")
    source.images = np.resize(source.images, (count, 8, 8, 1))
    source.labels, source.count = np.resize(source.labels, count), count
    form = OutputForm(
        choices=OutputChoices(home=directory / "data"),
        name=f"packed{size}",
        size=size,
        channels=3,
        recipe="guided",
    )
    with preparing(UNHEARD) as course:
        return prepare([source], form, course).splits[0].path


# ---- who reads it ----


def batches(kept_open: ExitStack, name: str, directory: Path, size: int, batch: int) -> Subject:
    """The batches of a training, flips and labels with them."""
    dataset = opened(directory, size)
    source = BatchSource(dataset, DataConfig(resolution=size, flip=True), seed=_SEED, batch_size=batch)
    prefetched = kept_open.enter_context(Prefetcher(source, range(_FOREVER), range(batch)))

    def read() -> Reading:
        # what was made ahead while others had their turn is taken first
        for _ in range(_WARMING_BATCHES):
            next(prefetched)
        reading = _timed(lambda: len(next(prefetched).images))
        # so that nothing goes on beside the turn of the other
        while not all(batch.done() for batch in tuple(prefetched._under_way)):
            time.sleep(0.001)
        return reading

    return Subject(name=name, read=read)


def opened(directory: Path, size: int) -> Dataset:
    return open_dataset(DataConfig(resolution=size), home=directory, directory=directory)


def gather(directory: Path, batch: int) -> Subject:
    """numpy's own gather from the memory map into one array, in the order of a training."""
    images = np.load(directory / "images.npy", mmap_mode="r").view(np.ndarray)
    order = np.random.default_rng(_SEED).permutation(len(images))
    parts = [order[start : start + batch] for start in range(0, len(order) - batch + 1, batch)]
    out = np.empty((batch, *images.shape[1:]), dtype=np.uint8)

    def read() -> Reading:
        turn = iter(range(_FOREVER))

        def take() -> int:
            images.take(parts[next(turn) % len(parts)], axis=0, out=out, mode="clip")
            return batch

        return _timed(take)

    return Subject(name="bare gather, one thread", read=read)


def plain_decoding(content: Sequence[bytes]) -> Reading:
    turn = iter(range(_FOREVER))

    def decode() -> int:
        Image.open(io.BytesIO(content[next(turn) % len(content)])).load()
        return 1

    return _timed(decode)


class HostFloats(TorchDataset[NDArray[np.float32]]):
    """Images as the papers' programs hand them to the network: decoded, cut and made floats on the host."""

    def __init__(self, directory: Path) -> None:
        self._files = sorted(directory.iterdir())

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        with self._files[index].open("rb") as file:
            image = Image.open(file)
            image.load()
        pixels = np.array(image.resize(image.size, Image.Resampling.BICUBIC).convert("RGB"))
        return np.transpose(pixels.astype(np.float32) / 127.5 - 1, [2, 0, 1])


def loader(directory: Path, batch: int) -> Subject:
    dataset = HostFloats(directory)

    def forever() -> Iterator[torch.Tensor]:
        while True:
            yield from DataLoader(dataset, batch_size=batch, shuffle=True, num_workers=1, drop_last=True)

    made = forever()

    def read() -> Reading:
        for _ in range(_WARMING_BATCHES):
            next(made)
        return _timed(lambda: len(next(made)))

    return Subject(name="DataLoader, one worker", read=read)


def _timed(read_some: Callable[[], int]) -> Reading:
    started_at, cpu_before, images = time.perf_counter(), time.process_time(), 0
    while (seconds := time.perf_counter() - started_at) < _ENOUGH_SECONDS:
        images += read_some()
    return Reading(images=images, seconds=seconds, cpu_seconds=time.process_time() - cpu_before)


# ---- waiting ----


@dataclass(frozen=True, kw_only=True)
class Wait:
    """How long a device that trains at a pace would wait for its images."""

    what: str
    images_per_second: float
    share: float


def waiting(directory: Path, scale: float) -> list[Wait]:
    """The share of a training's time in which it waits, when its steps take as long as on a fast GPU."""
    cases = [
        ("packed 32x32, batch 128", directory / "data" / "packed32" / "train", 32, 128, 4000),
        ("packed 64x64, batch 128", directory / "data" / "packed64" / "train", 64, 128, 1000),
        ("shards 256x256, batch 64", directory / "data" / "large_256" / "train", 256, 64, 200),
        ("folder of 32x32 PNG, batch 128", directory / "small", 32, 128, 4000),
        ("folder of 256x256 JPEG, batch 64", directory / "large", 256, 64, 200),
    ]
    return [waited(*case, steps=max(5, int(20 * scale))) for case in cases]


def waited(what: str, path: Path, size: int, batch: int, pace: float, *, steps: int) -> Wait:
    source = BatchSource(
        opened(path, size), DataConfig(resolution=size, flip=True), seed=_SEED, batch_size=batch
    )
    with Prefetcher(source, range(steps + 1), range(batch)) as prefetched:
        # the first batch is waited for whatever the speed
        next(prefetched)
        before, started_at = prefetched.waited_seconds, time.perf_counter()
        for _ in prefetched:
            time.sleep(batch / pace)
        seconds = time.perf_counter() - started_at
        share = (prefetched.waited_seconds - before) / seconds
    return Wait(what=what, images_per_second=pace, share=share)


# ---- what came out ----


def report(
    comparisons: Sequence[Comparison],
    rounds: Sequence[Sequence[tuple[Reading, Reading]]],
    waits: Sequence[Wait],
) -> str:
    lines = [
        f"Reading images, {datetime.now(UTC).isoformat(timespec='seconds')}, commit {commit()}",
        f"{machine()}; python {platform.python_version()}",
        f"torch {torch.__version__}, numpy {np.__version__}, pillow {PIL.__version__}",
        f"load of the machine while this ran: {os.getloadavg()[0]:.1f}; {len(rounds)} rounds in turns",
        "CPU s: for each second of CPU time of this process, without those that decode small images for it",
        "ratio: median over the rounds",
        "",
        f"{'images for each':44}{'s, best':>12}{'s, median':>12}{'CPU s, best':>13}{'ratio':>8}  goal",
    ]
    for place, comparison in enumerate(comparisons):
        turns = [one[place] for one in rounds]
        ratio = statistics.median(ours.per_second / other.per_second for ours, other in turns)
        lines.append(
            row(comparison.ours.name, [ours for ours, _ in turns]) + f"{ratio:8.2f}  {comparison.goal}"
        )
        lines.append(row(f"  {comparison.other.name}", [other for _, other in turns]))
    lines += ["", f"{'share of its time that a training waits':44}{'images/s':>12}{'waiting':>12}"]
    lines += [f"{wait.what:44}{wait.images_per_second:12,.0f}{100 * wait.share:11.2f} %" for wait in waits]
    return "\n".join(lines) + "\n"


def row(name: str, readings: Sequence[Reading]) -> str:
    best = max(reading.per_second for reading in readings)
    median = statistics.median(reading.per_second for reading in readings)
    # the worker of a DataLoader is another process
    cpu = max(reading.per_cpu_second for reading in readings)
    shown = "" if "DataLoader" in name else f"{cpu:,.0f}"
    return f"{name:44}{best:12,.0f}{median:12,.0f}{shown:>13}"


if __name__ == "__main__":
    main()
