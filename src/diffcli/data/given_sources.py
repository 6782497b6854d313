"""What a path that a user gives holds: an archive, a prepared dataset, a folder of images, or one image."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffcli.config.sections import DataConfig
from diffcli.data.dataset import open_dataset
from diffcli.data.prepared import is_prepared, prepared_splits
from diffcli.data.sources.folder import classes_by_directory, classes_by_file_name, read_folder
from diffcli.data.sources.image_files import SUFFIXES
from diffcli.errors import CorruptError, MissingError, UsageError
from diffcli.images.decode import decoded, printable
from diffcli.records.samples import SAMPLE_RECORD_FILE, GivenImagesKind

# what numpy raises for files that are no arrays; TypeError for one array where an archive is needed
UNREADABLE = (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenSource:
    """Images by index, 0..count-1: a picture, or its pixels uint8 [H, W, C].

    labels: numbers [>= count], of class_names, or of the run's own classes where that is None;
    fingerprint: of the archive, as its record has it.
    """

    path: Path
    kind: GivenImagesKind
    count: int
    image: Callable[[int], Image.Image | npt.NDArray[np.uint8]]
    name: Callable[[int], str]
    labels: npt.NDArray[np.generic] | None
    class_names: tuple[str, ...] | None
    fingerprint: str | None = None


def find_source(path: Path, option: str, config: DataConfig) -> GivenSource:
    """See what a path is and open it; no image is decoded yet.

    option: what names the path on the command line. MissingError, CorruptError, and UsageError for a
    directory of which no part is meant more than others.
    """
    if not path.exists():
        raise MissingError(f"there is no {printable(path)}", where=option)
    if path.is_dir():
        return _in_directory(path, option, config)
    if path.suffix.lower().removeprefix(".") in SUFFIXES:
        return _one_image(path)
    return _archive(path, option)


def archive_in(directory: Path) -> Path | None:
    """The one archive in a directory that `sample` has written; None for any other directory."""
    archives = sorted(directory.glob("*.npz"))
    return archives[0] if len(archives) == 1 and (directory / SAMPLE_RECORD_FILE).is_file() else None


def archived_labels(archive: Path, option: str) -> npt.NDArray[np.generic] | None:
    """arr_1 of a sample archive; None when it has none."""
    return _array(archive, "arr_1", option)


def _in_directory(path: Path, option: str, config: DataConfig) -> GivenSource:
    # before all else, since an archive's directory holds pictures too
    archive = archive_in(path)
    if archive is not None:
        return _archive(archive, option)
    if is_prepared(path):
        return _prepared(path, config)
    splits = prepared_splits(path.parent, path.name)
    if splits:
        raise UsageError(
            f"{printable(path)} holds the splits {', '.join(splits)}",
            where=option,
            remedy=f"name one of them: {option} {printable(path / splits[0])}",
        )
    return _folder(path, config)


def _prepared(path: Path, config: DataConfig) -> GivenSource:
    dataset = open_dataset(config, home=path.parent, directory=path)
    everything = np.arange(dataset.count)
    return GivenSource(
        path=path,
        kind="prepared dataset",
        count=dataset.count,
        image=lambda index: dataset.read(everything[index : index + 1])[0],
        name=lambda index: f"image {index}",
        labels=dataset.labels(everything) if dataset.class_names else None,
        class_names=dataset.class_names,
    )


def _folder(path: Path, config: DataConfig) -> GivenSource:
    folder = read_folder(path, "filename")
    paths = folder.files.paths
    classes = folder.classes
    if config.labels == "directories":
        classes = classes_by_directory(paths) if all("/" in name for name in paths) else None
    return GivenSource(
        path=path,
        kind="folder",
        count=len(paths),
        image=lambda index: folder.tree.image(paths[index]),
        name=lambda index: printable(paths[index]),
        labels=classes.labels if classes else None,
        class_names=classes.names if classes else None,
    )


def _one_image(path: Path) -> GivenSource:
    classes = classes_by_file_name([path.name])
    return GivenSource(
        path=path,
        kind="image",
        count=1,
        image=lambda _index: decoded(path),
        name=lambda _index: printable(path),
        labels=classes.labels,
        class_names=classes.names,
    )


def _archive(path: Path, option: str) -> GivenSource:
    images = _array(path, "arr_0", option)
    if images is None:
        raise _no_archive(path, option)
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images) or images.shape[3] not in (1, 3):
        raise UsageError(
            f"{printable(path)} holds {images.dtype} {list(images.shape)}, needed is uint8 [N, H, W, 1 or 3]",
            where=option,
        )
    pixels = images.astype(np.uint8, copy=False)
    return GivenSource(
        path=path,
        kind="archive",
        count=len(pixels),
        image=lambda index: pixels[index],
        name=lambda index: f"image {index}",
        labels=archived_labels(path, option),
        class_names=None,
        fingerprint=_recorded_fingerprint(path),
    )


def _array(path: Path, name: str, option: str) -> npt.NDArray[np.generic] | None:
    """An array of a sample archive, None when it has none of the name; CorruptError for any other file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            array = archive.get(name)
    except UNREADABLE as error:
        raise _no_archive(path, option) from error
    # of a member that is no array numpy gives the bytes
    if array is not None and not isinstance(array, np.ndarray):
        raise _no_archive(path, option)
    found: npt.NDArray[np.generic] | None = array
    return found


def _no_archive(path: Path, option: str) -> CorruptError:
    return CorruptError(
        f"{printable(path)} is not a sample archive",
        where=option,
        remedy=f"an archive (.npz with arr_0), an image ({', '.join(sorted(SUFFIXES))}), or a directory",
    )


def _recorded_fingerprint(archive: Path) -> str | None:
    if archive_in(archive.parent) != archive:
        return None
    try:
        record = json.loads((archive.parent / SAMPLE_RECORD_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    found = record.get("fingerprint") if isinstance(record, dict) else None
    return found if isinstance(found, str) else None
