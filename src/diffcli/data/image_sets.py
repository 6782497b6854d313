"""Images by a path that a user gives to `eval`: an archive, a prepared dataset, a folder; at their size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffcli.config.sections import DataConfig
from diffcli.data.archive_dataset import open_archive_dataset
from diffcli.data.dataset import Dataset, open_prepared
from diffcli.data.folder_dataset import FolderDataset
from diffcli.data.given_sources import archive_in
from diffcli.data.prepared import is_prepared, prepared_splits
from diffcli.data.sources.folder import FolderSource, read_folder
from diffcli.errors import MissingError, UsageError
from diffcli.images.decode import holds_gray, printable
from diffcli.records.image_evaluations import EvaluatedSet, SetKind

_ARCHIVE_SUFFIX = ".npz"


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Images of one size, and what they are."""

    kind: SetKind
    dataset: Dataset
    variant: str = ""
    split: str = ""

    def described(self, count: int) -> EvaluatedSet:
        """What a record says of the first `count` of them."""
        dataset = self.dataset
        return EvaluatedSet(
            kind=self.kind,
            location=dataset.location.absolute(),
            count=count,
            total=dataset.count,
            height=dataset.height,
            width=dataset.width,
            channels=dataset.channels,
            content_hash=dataset.content_hash,
            weak_hash=dataset.weak_hash,
            identity=dataset.identity,
            variant=self.variant,
            split=self.split,
        )


@contextlib.contextmanager
def open_image_set(path: Path, *, split: str | None, option: str, scratch: Path) -> Iterator[ImageSet]:
    """The images of a path.

    split: of a directory that holds several, None where one is enough; option: what named the path on the
    command line; scratch: a directory with room for the pixels of a compressed archive. Errors: MissingError,
    CorruptError, and UsageError for what holds no images of one size.
    """
    if not path.exists():
        raise MissingError(f"there is no {printable(path)}", where=option)
    archive = archive_in(path) if path.is_dir() else path
    if archive is None:
        yield _in_directory(path, split, option)
        return
    if archive.suffix != _ARCHIVE_SUFFIX:
        raise UsageError(
            f"{printable(path)} is neither an archive nor a directory",
            where=option,
            remedy="give an .npz, a prepared dataset, or a folder of images",
        )
    with open_archive_dataset(archive, scratch=scratch) as dataset:
        yield ImageSet(kind="archive", dataset=dataset)


def _in_directory(path: Path, split: str | None, option: str) -> ImageSet:
    splits = prepared_splits(path.parent, path.name)
    if splits:
        path /= _one_split(path, splits, split, option)
    if is_prepared(path):
        dataset = open_prepared(path)
        record = dataset.record
        return ImageSet(kind="prepared dataset", dataset=dataset, variant=record.variant, split=record.split)
    return ImageSet(kind="folder", dataset=_folder(path, option))


def _one_split(path: Path, splits: tuple[str, ...], split: str | None, option: str) -> str:
    if split in splits:
        return split
    if split is None and len(splits) == 1:
        return splits[0]
    raise UsageError(
        f"{printable(path)} holds the splits {', '.join(splits)}"
        + (f", and no {split!r}" if split is not None else ""),
        where=option,
        remedy=f"name one of them, such as {printable(path / splits[0])}",
    )


def _folder(path: Path, option: str) -> FolderDataset:
    """A folder at the size of its first image, gray if all are; another size is an error once it is read."""
    source = FolderSource(read_folder(path, DataConfig.labels))
    first = source.image(0)
    if first.width != first.height:
        raise UsageError(
            f"the images in {printable(path)} are no squares: the first is {first.width}x{first.height}",
            where=option,
            remedy=f"cut them first: diffcli prepare folder --source {printable(path)} "
            f"--size {min(first.size)}",
        )
    gray = first.mode == "L" and all(
        holds_gray(path / source.name(index)) for index in range(1, source.count)
    )
    config = DataConfig(resolution=first.width, channels=1 if gray else 3)
    return FolderDataset(path, config, resized=False)
