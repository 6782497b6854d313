"""Small archives in the layouts of the published datasets: the right names, keys and quirks, few images."""

from __future__ import annotations

import hashlib
import io
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def write_tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    """A tar, or a tar.gz with mode w:gz."""
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def write_zip(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_tree(root: Path, members: Mapping[str, bytes]) -> Path:
    """The same members as files below a directory."""
    for name, content in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG", **choices: object) -> bytes:
    """An image file; pixels: uint8 [H, W, 3]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind, **choices)
    return file.getvalue()


def noise(count: int, *shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random pixels, uint8 [count, *shape]."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


# ---- CIFAR-10 ----

CIFAR_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def python2_pickle(value: object) -> bytes:
    """A pickle as Python 2 wrote the batches: protocol 2, bytes as strings, arrays as numpy of then."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: object) -> bytes:
    if isinstance(value, dict):
        items = b"".join(_python2(key) + _python2(item) for key, item in value.items())
        return b"}q\x01(" + items + b"u"
    if isinstance(value, list):
        return b"]q\x02(" + b"".join(map(_python2, value)) + b"e"
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode("latin-1") + b"q\x03"
    assert isinstance(value, np.ndarray)
    assert value.dtype == np.uint8
    shape = b"".join(_python2(side) for side in value.shape)
    return (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\nq\x05K\x00\x85U\x01b\x87Rq\x06(K\x01"
        + (shape + (b"\x86" if value.ndim == 2 else b"\x85"))
        + b"cnumpy\ndtype\nq\x07U\x02u1K\x00K\x01\x87Rq\x08(K\x03U\x01|NNN"
        + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", value.size)
        + value.tobytes()
        + b"tb"
    )


def cifar_batch(pixels: NDArray[np.uint8], labels: list[int], name: str = "training batch 1 of 5") -> bytes:
    """pixels: uint8 [N, 3072], planes; labels as published."""
    names = [f"image_{number:06d}.png" for number in range(len(labels))]
    batch = {"batch_label": name, "labels": labels, "data": pixels, "filenames": names}
    return python2_pickle(batch)


def cifar_python(count: int = 4, tests: int = 3) -> dict[str, bytes]:
    """The members of cifar-10-python.tar.gz, `count` images in each of the five batches."""
    members = {
        f"cifar-10-batches-py/data_batch_{number}": cifar_batch(
            noise(count, 3072, seed=number), [(number * count + i) % 10 for i in range(count)]
        )
        for number in range(1, 6)
    }
    members["cifar-10-batches-py/readme.html"] = b"<html></html>\n"
    members["cifar-10-batches-py/test_batch"] = cifar_batch(noise(tests, 3072, seed=6), list(range(tests)))
    members["cifar-10-batches-py/batches.meta"] = python2_pickle(
        {"num_cases_per_batch": count, "label_names": list(CIFAR_LABELS), "num_vis": 3072}
    )
    return members


def cifar_binary(count: int = 4, tests: int = 3) -> dict[str, bytes]:
    """The same images and labels as the members of cifar-10-binary.tar.gz."""

    def rows(pixels: NDArray[np.uint8], labels: list[int]) -> bytes:
        return np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1).tobytes()

    members = {
        f"cifar-10-batches-bin/data_batch_{number}.bin": rows(
            noise(count, 3072, seed=number), [(number * count + i) % 10 for i in range(count)]
        )
        for number in range(1, 6)
    }
    members["cifar-10-batches-bin/batches.meta.txt"] = "\n".join(CIFAR_LABELS).encode()
    members["cifar-10-batches-bin/test_batch.bin"] = rows(noise(tests, 3072, seed=6), list(range(tests)))
    return members


# ---- ImageNet 64x64, the PixelRNN variant ----


def pixelrnn_members(directory: str, count: int) -> dict[str, bytes]:
    """The members of train_64x64.tar or valid_64x64.tar: flat, numbered from 1, no class in the names."""
    pixels = noise(count, 64, 64, 3, seed=count)
    return {f"{directory}/{number + 1:07d}.png": encoded(pixels[number]) for number in range(count)}


# ---- ImageNet 64x64, the variant of Chrabaszcz et al. ----

# the order of map_clsloc.txt is not that of the ids
CLASS_MAP = {1: "n02119789", 2: "n02100735", 3: "n02110185", 4: "n01440764"}


def class_map_text(classes: Mapping[int, str] = CLASS_MAP) -> bytes:
    """map_clsloc.txt."""
    return "".join(f"{name} {number} some_name\n" for number, name in classes.items()).encode()


def npz(*, compressed: bool = False, **arrays: object) -> bytes:
    """An npz file."""
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def chrabaszcz_npz(seed: int, count: int = 3, **changes: object) -> bytes:
    """A part: pixels in planes, labels from 1, the mean; labels are (seed + i) mod 4 + 1."""
    labels = [(seed + i) % 4 + 1 for i in range(count)]
    arrays = {"data": noise(count, 12288, seed=seed), "labels": labels, "mean": np.zeros(12288)} | changes
    return npz(compressed=seed % 2 == 1, **arrays)


def chrabaszcz_zips(place: Path, count: int = 3) -> tuple[Path, Path, Path]:
    """Imagenet64_train_part1_npz.zip, part2 and val."""
    parts = {number: chrabaszcz_npz(number, count) for number in range(1, 11)}
    train = [
        write_zip(
            place / f"Imagenet64_train_part{half + 1}_npz.zip",
            {f"train_data_batch_{number}.npz": parts[number] for number in range(5 * half + 1, 5 * half + 6)},
            zipfile.ZIP_STORED if half else zipfile.ZIP_DEFLATED,
        )
        for half in range(2)
    ]
    val = write_zip(place / "Imagenet64_val_npz.zip", {"val_data.npz": chrabaszcz_npz(20, count)})
    return train[0], train[1], val


# ---- ImageNet ----

WORDNET_IDS = ("n01440764", "n02100735", "n02119789")


def photo(number: int, kind: str = "JPEG") -> bytes:
    """A photograph of its own shade, larger than it will be, and no square."""
    pixels = np.full((70 + number, 90, 3), (20 * number % 256, 255 - 20 * number % 256, 90), np.uint8)
    return encoded(pixels, kind)


def imagenet_train(each: int = 2) -> dict[str, dict[str, bytes]]:
    """The files of each class."""
    return {
        name: {f"{name}_{10026 + 7 * i}.JPEG": photo(each * c + i) for i in range(each)}
        for c, name in enumerate(WORDNET_IDS)
    }


def imagenet_train_tar(path: Path, classes: Mapping[str, Mapping[str, bytes]]) -> Path:
    """ILSVRC2012_img_train.tar: a tar of a tar for each class."""
    members = {}
    for name, files in classes.items():
        inner = write_tar(path.with_suffix(".inner"), files)
        members[f"{name}.tar"] = inner.read_bytes()
        inner.unlink()
    return write_tar(path, members)


def imagenet_val(count: int = 4) -> dict[str, bytes]:
    """The members of ILSVRC2012_img_val.tar."""
    return {f"ILSVRC2012_val_{number + 1:08d}.JPEG": photo(number) for number in range(count)}


def devkit_members(truth: list[int], ids: Mapping[int, str]) -> dict[str, bytes]:
    """The files of ILSVRC2012_devkit_t12.tar.gz that count, with one synset that has children."""
    from scipy.io import savemat

    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(number, name, "some name", 0) for number, name in ids.items()]
    rows.append((len(ids) + 1, "n00001740", "entity", 3))
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=kinds)[:, None]}, do_compression=True)
    root = "ILSVRC2012_devkit_t12"
    return {
        f"{root}/data/meta.mat": meta.getvalue(),
        f"{root}/data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{n}\n" for n in truth).encode(),
        f"{root}/readme.txt": b"text\n",
    }


def solution_csv(ids: list[str]) -> bytes:
    """Kaggle's LOC_val_solution.csv, which is in no order."""
    lines = [f"ILSVRC2012_val_{i + 1:08d},{name} 1 2 30 40 {name} 5 6 7 8" for i, name in enumerate(ids)]
    return "\n".join(["ImageId,PredictionString", *reversed(lines), ""]).encode()


# ---- LSUN ----


def lsun_directory(root: Path, records: Mapping[bytes, bytes]) -> Path:
    """bedroom_train_lmdb/ and its like: data.mdb and lock.mdb."""
    import lmdb

    root.mkdir(parents=True)
    with lmdb.open(str(root), map_size=2**28) as environment, environment.begin(write=True) as transaction:
        for key, content in records.items():
            transaction.put(key, content)
    return root


def lsun_records(count: int = 5, side: int = 64) -> dict[bytes, bytes]:
    """Images by 40 letters, WebP and JPEG, each of its own shade, not in the order of the keys."""
    records = {}
    for number in range(count):
        key = hashlib.sha1(str(number).encode()).hexdigest().encode()
        pixels = np.full((side, side + 10 * number, 3), 40 * number % 256, np.uint8)
        records[key] = encoded(pixels, "JPEG" if number % 2 else "WEBP", quality=95)
    return records


def lsun_zip(path: Path, records: Mapping[bytes, bytes]) -> Path:
    """The zip of such a directory, with its name as the top."""
    directory = lsun_directory(path.with_suffix(""), records)
    members = {f"{directory.name}/{file.name}": file.read_bytes() for file in directory.iterdir()}
    shutil.rmtree(directory)
    return write_zip(path, members)
