"""`prepare digits` and `prepare folder`: open the source, then prepare it."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.course import Course, preparing
from diffcli.commands.kept_splits import require_free
from diffcli.commands.output_form import OutputChoices, OutputForm, check_form
from diffcli.commands.preparation import nearest_existing, prepare
from diffcli.config.sections import DataConfig, LabelSource, ResizeRecipe
from diffcli.data.sources.digits import SPLITS, DigitsSource
from diffcli.data.sources.folder import FOLDER_SPLIT, FolderSource, list_images
from diffcli.data.sources.image_files import open_images
from diffcli.data.sources.named_files import require_there
from diffcli.data.sources.npz_images import open_npz_images
from diffcli.data.sources.source import ImageSource
from diffcli.errors import UsageError
from diffcli.records.datasets import UNHEARD, PrepareListener, PrepareResult

_ARCHIVE_SUFFIX = re.compile(r"(\.tar|\.tar\.gz|\.tgz|\.zip|\.npz)$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class DigitsRequest(OutputChoices):
    """Prepare the embedded digits."""


@dataclass(frozen=True, kw_only=True)
class FolderRequest(OutputChoices):
    """Prepare a folder of images, or an archive of one.

    source: a directory, a tar, tar.gz or zip file, or an npz of arrays; size: height and width, pixels;
    labels_file: a csv or JSON file that decides the classes in place of names; channels: 1 gray, 3 RGB; name:
    "" stands for `default_name`.
    """

    source: Path
    size: int
    recipe: ResizeRecipe = DataConfig.resize_recipe
    labels: LabelSource = DataConfig.labels
    labels_file: Path | None = None
    channels: int = DataConfig.channels
    name: str = ""


def prepare_digits(request: DigitsRequest, listener: PrepareListener = UNHEARD) -> PrepareResult:
    """Write both splits of the digits, or find them there and intact; errors are those of `prepare`."""
    form = OutputForm(
        choices=request,
        name="digits",
        size=8,
        channels=1,
        recipe="",
        keep_same=True,
    )
    with preparing(listener) as course:
        return prepare([DigitsSource(split) for split in SPLITS], form, course)


def prepare_folder(request: FolderRequest, listener: PrepareListener = UNHEARD) -> PrepareResult:
    """Write every image of a folder or archive as one split.

    Errors: MissingError, CorruptError for a bad archive, UsageError for labels, and those of `prepare`.
    """
    form = OutputForm(
        choices=request,
        name=request.name or default_name(request.source, request.size),
        size=request.size,
        channels=request.channels,
        recipe=request.recipe,
    )
    check_form(form)
    # listing a large source takes a while, only to be refused afterwards
    require_free(form.target(FOLDER_SPLIT), form)
    if request.labels_file is not None:
        require_there(request.labels_file, "give a csv of path,class or a JSON file with --labels-from")
    with preparing(listener) as course, contextlib.ExitStack() as stack:
        opened = _opened(request, stack, course)
        result = prepare([opened.source], form, course)
    return dataclasses.replace(result, passed_over=opened.passed_over)


@dataclass(frozen=True, kw_only=True)
class _Opened:
    source: ImageSource
    passed_over: int


def _opened(request: FolderRequest, stack: contextlib.ExitStack, course: Course) -> _Opened:
    """The images; what must be closed is the stack's."""
    scratch = nearest_existing(request.home)
    if request.source.suffix.lower() == ".npz" and request.source.is_file():
        if request.labels_file is not None or request.labels == "directories":
            raise UsageError("an npz has its labels in arr_1", remedy="leave --labels and --labels-from out")
        with course.phase("unpacking", "bytes") as told:
            npz = stack.enter_context(open_npz_images(request.source, scratch=scratch, progress=told))
        return _Opened(source=npz, passed_over=0)
    with course.phase("reading the archive", "bytes") as told:
        tree = stack.enter_context(open_images(request.source, scratch=scratch, progress=told))
    with course.phase("listing the images"):
        folder = list_images(tree, request.labels, request.labels_file)
    return _Opened(source=FolderSource(folder), passed_over=tree.passed_over)


def default_name(source: Path, size: int) -> str:
    """The dataset name for a folder or archive: its own name and the size, such as `cats_64`."""
    own = source.resolve().name
    if not source.is_dir():
        own = _ARCHIVE_SUFFIX.sub("", own)
    plain = re.sub(r"[^\w.-]+", "_", own).strip("._-")
    return f"{plain or 'images'}_{size}"
