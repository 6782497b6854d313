"""Arrays of npz files where they lie: what is mapped, and what is left to readers that copy."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from diffcli.config.sections import DataConfig, RunConfig
from diffcli.data.given_images import WantedImages, read_given_images
from diffcli.data.stored_arrays import mapped_array

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def npz(path, content: bytes, *, compression: int = zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("other.npy", npy(np.arange(3)))
        archive.writestr("arr_0.npy", content)
    return path


def test_an_array_is_mapped_as_it_is_and_read_only(tmp_path):
    np.savez(tmp_path / "a.npz", arr_0=IMAGES, arr_1=np.arange(5))
    mapped = mapped_array(tmp_path / "a.npz", "arr_0")
    assert np.array_equal(mapped, IMAGES)
    assert (mapped.dtype, mapped.flags.writeable) == (np.uint8, False)
    assert mapped_array(tmp_path / "a.npz", "arr_1").tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(mapped_array(npz(tmp_path / "b.npz", npy(IMAGES)), "arr_0"), IMAGES)


NOT_MAPPED = {
    "by columns": npy(np.asfortranarray(IMAGES)),
    "objects": npy(np.array([{}, {}], dtype=object), allow_pickle=True),
    "more than its header says": npy(IMAGES) + b"\0",
    "less than its header says": npy(IMAGES)[:-1],
    "no array": b"text",
    "nothing": b"",
    "no images": npy(IMAGES[:0]),
}


@pytest.mark.parametrize("content", NOT_MAPPED)
def test_what_is_unusual_is_left_to_others(content, tmp_path):
    assert mapped_array(npz(tmp_path / "a.npz", NOT_MAPPED[content]), "arr_0") is None


def test_compressed_damaged_and_missing_ones_are_left_to_others(tmp_path):
    packed = npz(tmp_path / "packed.npz", npy(IMAGES), compression=zipfile.ZIP_DEFLATED)
    assert mapped_array(packed, "arr_0") is None
    damaged = npz(tmp_path / "damaged.npz", npy(IMAGES))
    content = bytearray(damaged.read_bytes())
    content[content.index(IMAGES.tobytes()[:40])] ^= 1
    damaged.write_bytes(content)
    assert mapped_array(damaged, "arr_0") is None
    assert mapped_array(damaged, "arr_7") is None
    assert mapped_array(tmp_path / "nowhere.npz", "arr_0") is None
    (tmp_path / "array.npz").write_bytes(npy(IMAGES))
    assert mapped_array(tmp_path / "array.npz", "arr_0") is None


def test_images_of_the_size_need_no_memory_of_their_own(tmp_path):
    many = np.resize(IMAGES, (8000, 32, 32, 3))
    np.savez(tmp_path / "many.npz", arr_0=many)
    wanted = WantedImages(
        option="--low-res",
        count=6000,
        small=False,
        with_labels=False,
        config=RunConfig(data=DataConfig(resolution=32, channels=3)),
        class_names=(),
    )
    tracemalloc.start()
    try:
        given = read_given_images(tmp_path / "many.npz", wanted)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # what is read at once to compare the checksum
    assert peak_bytes < many.nbytes / 2
    assert np.array_equal(given.images, many[:6000])
