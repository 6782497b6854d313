"""`prepare imagenet64`: ImageNet at 64x64 in one of its two variants."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from diffcli.commands.course import Course, preparing
from diffcli.commands.downloading import download_place, downloaded
from diffcli.commands.kept_splits import kept_split, require_free
from diffcli.commands.output_form import OutputChoices, OutputForm, check_form
from diffcli.commands.preparation import nearest_existing, prepare
from diffcli.data.downloads.remote_file import RemoteFile
from diffcli.data.sources.chrabaszcz import (
    GIVE_ZIPS,
    ChrabaszczSource,
    GivenFiles,
    announced_chrabaszcz,
    open_chrabaszcz,
)
from diffcli.data.sources.listed_images import ListedSource
from diffcli.data.sources.named_files import require_there
from diffcli.data.sources.pixelrnn import ARCHIVES, announced_pixelrnn, open_pixelrnn
from diffcli.data.sources.published import published_origin
from diffcli.data.sources.source import Origin, file_origin
from diffcli.data.sources.wordnet_ids import read_class_map
from diffcli.errors import MissingError
from diffcli.records.datasets import UNHEARD, PreparedSplit, PrepareListener, PrepareProgress, PrepareResult

Variant = Literal["pixelrnn", "chrabaszcz"]
NAMES: dict[Variant, str] = {"pixelrnn": "imagenet64", "chrabaszcz": "imagenet64_chrabaszcz"}
_CLASS_MAP = "map_clsloc.txt"
_GIVE_CLASS_MAP = f"give {_CLASS_MAP}, from the devkit of the ILSVRC localization task, with --class-map"


@dataclass(frozen=True, kw_only=True)
class ImageNet64Request(OutputChoices):
    """Prepare one variant; train, val: files or directories, () for a split that is not to be prepared.

    With neither both are fetched: url: of a mirror's directory of the pixelrnn variant. class_map:
    map_clsloc.txt for the chrabaszcz variant, looked for beside the files when it is None.
    """

    variant: Variant
    train: Sequence[Path] = ()
    val: Sequence[Path] = ()
    url: str = ""
    class_map: Path | None = None
    allow_partial: bool = False

    @property
    def given(self) -> tuple[tuple[str, Sequence[Path]], ...]:
        """The splits that are given, with their files."""
        both = (("train", self.train), ("val", self.val))
        return tuple((split, locations) for split, locations in both if locations)


def prepare_imagenet64(request: ImageNet64Request, listener: PrepareListener = UNHEARD) -> PrepareResult:
    """Write the splits that are given, or keep them.

    Errors are those of `downloaded`, of the sources and of `prepare`, and MissingError when neither files nor
    a mirror are given. Main thread only.
    """
    form = OutputForm(
        choices=request,
        name=NAMES[request.variant],
        size=64,
        channels=3,
        recipe="",
        keep_same=True,
    )
    check_form(form)
    for split in [split for split, _ in request.given] or ["train", "val"]:
        require_free(form.target(split), form)
    with preparing(listener) as course, contextlib.ExitStack() as stack:
        if request.variant == "chrabaszcz":
            return _prepare_chrabaszcz(request, form, course)
        kept = list(_kept_pixelrnn(request, form, course))
        there = {split.split for split in kept}
        sources = [
            _opened(split, location, request, stack, course)
            for split, location in _pixelrnn_files(request, there, course)
        ]
        result = prepare(sources, form, course, kept)
    return dataclasses.replace(result, passed_over=sum(source.passed_over for source in sources))


def _kept_pixelrnn(request: ImageNet64Request, form: OutputForm, course: Course) -> Iterator[PreparedSplit]:
    """The splits that are there; those of directories are only known once these are listed."""
    found = [
        announced_pixelrnn(split, partial(file_origin, locations[0]))
        for split, locations in request.given
        if locations[0].is_file()
    ]
    if not request.given:
        found = [
            announced_pixelrnn(split, partial(_fetched_origin, file, request.home))
            for split, file in ARCHIVES.items()
        ]
    for announced in found:
        kept = kept_split(announced, form, course, partial=request.allow_partial)
        if kept is not None:
            yield kept


def _fetched_origin(file: RemoteFile, home: Path, _progress: PrepareProgress) -> Origin:
    return published_origin(file, download_place(file, home))


def _pixelrnn_files(
    request: ImageNet64Request, there: set[str], course: Course
) -> Iterator[tuple[str, Path]]:
    """The file or directory of each split that is not there yet."""
    if request.given:
        yield from ((split, locations[0]) for split, locations in request.given if split not in there)
        return
    missing = {split: file for split, file in ARCHIVES.items() if split not in there}
    if missing and not request.url:
        raise MissingError(
            "the links of ImageNet 64x64 (PixelRNN) are dead",
            where=f"they were {ARCHIVES['train'].url} and {ARCHIVES['val'].url}",
            remedy=ARCHIVES["train"].otherwise,
        )
    for split, file in missing.items():
        url = f"{request.url.rstrip('/')}/{file.name}"
        yield split, downloaded(file, url=url, home=request.home, course=course)


def _opened(
    split: str, location: Path, request: ImageNet64Request, stack: contextlib.ExitStack, course: Course
) -> ListedSource:
    with course.phase("listing the images", "bytes") as told:
        opened = open_pixelrnn(split, location, allow_partial=request.allow_partial, progress=told)
        return stack.enter_context(opened)


def _prepare_chrabaszcz(request: ImageNet64Request, form: OutputForm, course: Course) -> PrepareResult:
    for location in (*request.train, *request.val):
        require_there(location, GIVE_ZIPS)
    class_map = read_class_map(_class_map(request))
    kept: list[PreparedSplit] = []
    sources: list[ChrabaszczSource] = []
    for split, locations in request.given:
        given = GivenFiles(
            split=split,
            locations=locations,
            class_map=class_map,
            scratch=nearest_existing(request.home),
        )
        there = kept_split(announced_chrabaszcz(given), form, course, partial=request.allow_partial)
        if there is not None:
            kept.append(there)
            continue
        with course.phase("reading labels", "bytes") as told:
            sources.append(open_chrabaszcz(given, allow_partial=request.allow_partial, progress=told))
    return prepare(sources, form, course, kept)


def _class_map(request: ImageNet64Request) -> Path:
    if request.class_map is not None:
        require_there(request.class_map, _GIVE_CLASS_MAP)
        return request.class_map
    for location in (*request.train, *request.val):
        for directory in (location, location.parent):
            if (directory / _CLASS_MAP).is_file():
                return directory / _CLASS_MAP
    raise MissingError(
        "the numbers of the classes in these files mean nothing without their map",
        where=f"there is no {_CLASS_MAP} beside them",
        remedy=_GIVE_CLASS_MAP,
    )
