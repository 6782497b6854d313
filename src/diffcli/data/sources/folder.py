"""A folder of images, or an archive of one: what it holds, in which order, of which classes; its pixels."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from diffcli.config.sections import LabelSource
from diffcli.data.sources.classes import Classes, numbered_classes
from diffcli.data.sources.image_files import SUFFIXES, DirectoryTree, ImageFiles, ImageTree, file_name
from diffcli.data.sources.label_files import (
    DATASET_JSON,
    classes_by_labels,
    labels_of_json,
    read_label_file,
)
from diffcli.data.sources.source import Origin, SourceFacts, file_origin
from diffcli.errors import MissingError, UsageError
from diffcli.images.decode import printable
from diffcli.records.datasets import LabelOrigin, PrepareProgress, no_progress

FOLDER_SPLIT = "train"
# names of files need not be text
_RAW = "surrogateescape"


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The images of a folder in listing order; `classes` is None when their names tell none."""

    tree: ImageTree
    files: ImageFiles
    classes: Classes | None
    label_source: LabelOrigin


class FolderSource:
    """The images of a folder or archive as one split. Implements `ImageSource`."""

    def __init__(self, folder: Folder) -> None:
        self.location = folder.tree.location
        self.count = len(folder.files)
        self.labels = folder.classes.labels if folder.classes else None
        kind = "folder" if self.location.is_dir() else "archive"
        self.facts = SourceFacts(
            split=FOLDER_SPLIT,
            split_rule=f"all images of the {kind}",
            label_source=folder.label_source,
            class_names=folder.classes.names if folder.classes else (),
        )
        self._folder = folder

    def name(self, index: int) -> str:
        """As `ImageSource`."""
        return self._folder.files.paths[index]

    def image(self, index: int) -> Image.Image:
        """As `ImageSource`."""
        return self._folder.tree.image(self.name(index))

    def encoded(self, index: int) -> bytes:
        """As `ImageSource`."""
        return self._folder.tree.content(self.name(index))

    def identity(self) -> str:
        """As `ImageSource`; over relative paths, sizes and times of change, and how classes were told."""
        digest = hashlib.sha256(f"{self.location.resolve()} {self._folder.label_source}".encode(errors=_RAW))
        for file in self._folder.files:
            # a length in front, since a path may hold any other separator
            path = file.path.encode(errors=_RAW)
            digest.update(b"%d %d %d " % (len(path), file.size_bytes, file.modified_ns) + path)
        if self.labels is not None:
            digest.update(self.labels.tobytes())
        return digest.hexdigest()

    def origin(self, progress: PrepareProgress = no_progress) -> Origin:
        """As `ImageSource`."""
        if not self.location.is_dir():
            return file_origin(self.location, progress)
        size_bytes = sum(self._folder.files.sizes_bytes)
        return Origin(url=self.location.resolve().as_uri(), size_bytes=size_bytes)


def read_folder(root: Path, labels: LabelSource) -> Folder:
    """List a directory; errors are MissingError when there is none, and those of `list_images`."""
    if not root.is_dir():
        what = f"{printable(root)} is not a directory" if root.exists() else f"there is no {printable(root)}"
        raise MissingError(what, remedy="give a folder of images")
    return list_images(DirectoryTree(root), labels)


def list_images(tree: ImageTree, labels: LabelSource, labels_file: Path | None = None) -> Folder:
    """List image files and work out their classes.

    A given file of labels decides, then directories if they are asked for, then dataset.json at the top of
    the tree or in a directory that holds all images, then file names. Errors: MissingError when there is no
    image, UsageError when the directories tell no classes, CorruptError when a file does not, and those of
    the tree.
    """
    files = ImageFiles(tree.files())
    if not len(files):
        raise MissingError(
            f"{printable(tree.location)} holds no images", remedy=f"looked for {', '.join(sorted(SUFFIXES))}"
        )
    classes, label_source = _classes(tree, files.paths, labels, labels_file)
    return Folder(tree=tree, files=files, classes=classes, label_source=label_source)


def _classes(
    tree: ImageTree, paths: Sequence[str], labels: LabelSource, labels_file: Path | None
) -> tuple[Classes | None, LabelOrigin]:
    if labels_file is not None:
        found = read_label_file(labels_file)
        return classes_by_labels(paths, found, labels_file.name), "labels file"
    if labels == "directories":
        return classes_by_directory(paths), "directories"
    for top in _common_directories(paths):
        content = tree.other_content(top + DATASET_JSON)
        listed = None if content is None else labels_of_json(content, top + DATASET_JSON)
        if listed is not None:
            below = [path.removeprefix(top) for path in paths] if top else paths
            return classes_by_labels(below, listed, top + DATASET_JSON), "dataset.json"
    if not any("_" in file_name(path) for path in paths):
        return None, "none"
    return classes_by_file_name(paths), "filename"


def _common_directories(paths: Sequence[str]) -> Iterator[str]:
    """The top, "", and each directory that holds all files, with a slash behind; programs pack it along."""
    yield ""
    # what the first and the last in the order of their text have in common, all have
    first, last = min(paths).split("/")[:-1], max(paths).split("/")[:-1]
    top = ""
    for part, other in zip(first, last, strict=False):
        if part != other:
            return
        top += f"{part}/"
        yield top


def classes_by_file_name(paths: Sequence[str]) -> Classes:
    """The class is the file name up to its first underscore, all of it when there is none."""
    # of a million files there are a thousand names
    return numbered_classes([sys.intern(file_name(path).partition("_")[0]) for path in paths])


def classes_by_directory(paths: Sequence[str]) -> Classes:
    """The class is the topmost directory below the folder; UsageError for images that lie in none."""
    outside = [path for path in paths if "/" not in path]
    if outside:
        raise UsageError(
            f"{len(outside)} of {len(paths)} images lie in no directory that could be their class",
            where=f"the first: {printable(outside[0])}",
            remedy="move them into one directory per class, or use --labels filename",
        )
    return numbered_classes([sys.intern(path.partition("/")[0]) for path in paths])
