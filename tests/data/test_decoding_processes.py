"""Small images decoded in processes: the same pixels and errors as in threads, and nothing that stays."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffcli.config.sections import DataConfig
from diffcli.data.decoding_processes import DecodingProcesses
from diffcli.data.folder_dataset import FolderDataset
from diffcli.data.sources.folder import FolderSource, read_folder
from diffcli.data.squares import SquareFormat
from diffcli.errors import CorruptError, DiffcliError
from diffcli_process import shell_environment

ENOUGH = 4096
CONFIG = DataConfig(resolution=8)


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(5)
    for number in range(20):
        size = (8, 8) if number % 2 else (11 + number, 9)
        image = Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8))
        image = image.convert("L") if number % 5 == 0 else image
        image.save(tmp_path / f"é_{number:02d}.{('png', 'jpg', 'webp')[number % 3]}")
    Image.new("RGB", (9, 9), (1, 2, 3)).save(os.fsencode(tmp_path) + b"/\xff_name.png")
    (tmp_path / "below").mkdir()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "below" / "with\nline.png")
    return tmp_path


def workers(owner=None):
    """The processes of this module that a process, or this one, has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == (owner or os.getpid()) and b"diffcli.data.decoding_worker" in command:
            found.append(int(stat.parent.name))
    return sorted(found)


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def started(processes):
    processes.running(ENOUGH)
    wait_until(lambda: processes.running(0))
    return processes


def with_processes(folder, config=CONFIG):
    """The folder as a dataset that processes decode, as if much of it had been read."""
    dataset = FolderDataset(folder, config)
    started(dataset._processes)
    return dataset


@pytest.mark.parametrize(("resolution", "channels"), [(5, 1), (8, 3)])
def test_pixels_are_those_of_threads(photos, resolution, channels):
    config = DataConfig(resolution=resolution, channels=channels)
    dataset = with_processes(photos, config)
    assert workers()
    indices = np.arange(300) * 7 % dataset.count
    fresh = FolderDataset(photos, config)
    assert np.array_equal(dataset.read(indices), fresh.read(indices))
    assert dataset.read(indices[:0]).shape == (0, resolution, resolution, channels)
    # several batches at once, each into memory of its own
    out = np.zeros((2, 5, resolution, resolution, channels), dtype=np.uint8)
    dataset.read(indices[:5], out[1])
    assert np.array_equal(out[1], fresh.read(indices[:5]))
    assert not out[0].any()


def test_bad_images_are_told_as_by_threads(photos):
    by_processes, by_threads = with_processes(photos), FolderDataset(photos, CONFIG)
    (photos / "é_03.png").write_bytes(b"")
    (photos / "é_09.png").unlink()
    (photos / "é_10.jpg").write_bytes(b"no image")
    told = []
    for dataset in (by_processes, by_threads):
        with pytest.raises(CorruptError, match="6 of 40") as caught:
            dataset.read(np.arange(40) % 20 + 2)
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert "é_03.png: an empty file" in told[0]
    # which leaves them in working order
    good = np.array([0, 1])
    assert np.array_equal(by_processes.read(good), by_threads.read(good))


def test_images_of_another_size_are_refused_where_none_is_resized(photos):
    source = FolderSource(read_folder(photos, CONFIG.labels))
    square = SquareFormat(resolution=8, recipe="", channels=3)
    processes = started(DecodingProcesses(photos, square))
    bad = processes.fill(source, list(range(source.count)), np.empty((source.count, 8, 8, 3), np.uint8))
    assert len(bad) == 11
    assert {"9x11", "9x9"} < {image.reason.partition(" in")[0] for image in bad}


def test_they_start_when_it_pays_and_end_with_the_dataset(photos):
    gc.collect()
    dataset = FolderDataset(photos, CONFIG)
    dataset.read(np.arange(ENOUGH - 1) % dataset.count)
    time.sleep(0.05)
    assert not workers()
    dataset.read(np.arange(1))
    wait_until(workers)
    started(dataset._processes)
    there = workers()
    assert there
    del dataset
    gc.collect()
    assert not any(map(alive, there))


def test_large_images_stay_with_threads(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    dataset = FolderDataset(tmp_path, CONFIG)
    for _ in range(3):
        dataset.read(np.zeros(ENOUGH // 20, dtype=np.int64))
    assert dataset._processes is None


def test_one_that_is_killed_is_an_error_and_no_hang(photos):
    dataset = with_processes(photos)
    for pid in workers():
        os.kill(pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(DiffcliError, match="decodes images has ended, killed by SIGKILL") as caught:
            dataset.read(np.arange(100) % dataset.count)
        assert str(photos) in caught.value.where
        assert "memory" in caught.value.remedy


@pytest.mark.parametrize("program", ["/nowhere/python", "/bin/false", "/bin/cat"])
def test_where_none_can_be_started_threads_decode_on_in_silence(photos, program, monkeypatch, capfd):
    monkeypatch.setattr(sys, "executable", program)
    dataset = FolderDataset(photos, CONFIG)
    dataset._processes.running(ENOUGH)
    time.sleep(0.1)
    indices = np.arange(dataset.count)
    assert np.array_equal(dataset.read(indices), FolderDataset(photos, CONFIG).read(indices))
    assert not dataset._processes.running(0)
    assert not workers()
    assert capfd.readouterr() == ("", "")


OWNER = f"""
import signal, sys, time
from pathlib import Path
import numpy as np
from diffcli.config.sections import DataConfig
from diffcli.data.folder_dataset import FolderDataset

stopped = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stopped.append(1))
dataset = FolderDataset(Path(sys.argv[1]), DataConfig(resolution=8))
indices = np.arange(100) % dataset.count
expected = dataset.read(indices)
dataset._processes.running({ENOUGH})
while not dataset._processes.running(0):
    time.sleep(0.01)
print("ready", flush=True)
while not stopped:
    assert (dataset.read(indices) == expected).all()
for _ in range(3):
    assert (dataset.read(indices) == expected).all()
print("read on", flush=True)
"""


def owner(photos):
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(photos)],
        env=shell_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process, workers(process.pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_of_them_is_the_owners_to_answer(photos, number):
    process, there = owner(photos)
    assert there
    os.killpg(process.pid, number)
    assert process.communicate(timeout=60) == ("read on\n", "")
    assert process.returncode == 0
    assert not any(map(alive, there))


def test_none_outlives_an_owner_that_is_killed(photos):
    process, there = owner(photos)
    assert there
    process.kill()
    wait_until(lambda: not any(map(alive, there)))
    assert process.communicate(timeout=60) == ("", "")


def test_their_program_does_without_torch():
    program = "import sys, diffcli.data.decoding_worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
