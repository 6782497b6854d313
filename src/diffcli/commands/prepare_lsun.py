"""`prepare lsun`: one category, fetched or from files that are there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffcli.commands.course import Course, preparing
from diffcli.commands.downloading import download_place, downloaded
from diffcli.commands.kept_splits import kept_split, require_free
from diffcli.commands.output_form import OutputChoices, OutputForm, check_form
from diffcli.commands.preparation import prepare
from diffcli.commands.unpacking import unpacked
from diffcli.config.sections import ResizeRecipe
from diffcli.data.sources.lsun import (
    BASE_URL,
    DATA_FILE,
    PUBLISHED,
    Category,
    LsunSource,
    Split,
    announced_lsun,
    find_data_file,
    lsun_origin,
    open_lsun,
    require_library,
    require_split,
)
from diffcli.data.sources.named_files import require_there
from diffcli.data.sources.published import published_origin
from diffcli.data.sources.source import ImageSource, Origin
from diffcli.data.sources.whole_images import without_damaged
from diffcli.records.datasets import UNHEARD, PrepareListener, PrepareProgress, PrepareResult

_GIVE = "give the zip as it was published, its directory, or data.mdb"


@dataclass(frozen=True, kw_only=True)
class LsunRequest(OutputChoices):
    """Prepare the splits that are given, or fetch all that are published; size: height and width, pixels.

    url: of a mirror of http://dl.yf.io/lsun, "" for that itself;
    allow_partial: also when the count differs from the published, and without the records that are damaged.
    """

    category: Category
    size: int
    train: Path | None = None
    val: Path | None = None
    url: str = ""
    recipe: ResizeRecipe | Literal["box"] = "box"
    allow_partial: bool = False

    @property
    def name(self) -> str:
        """Of the dataset, such as lsun_bedroom_256."""
        return f"lsun_{self.category}_{self.size}"

    @property
    def wanted(self) -> tuple[tuple[Split, Path | None], ...]:
        """The splits to prepare, each with its file, None for one to fetch."""
        given: dict[Split, Path | None] = {"train": self.train, "val": self.val}
        if self.train is None and self.val is None:
            return tuple((split, None) for split in given if (self.category, split) in PUBLISHED)
        return tuple((split, location) for split, location in given.items() if location is not None)


def prepare_lsun(request: LsunRequest, listener: PrepareListener = UNHEARD) -> PrepareResult:
    """Write the splits that are given, all published ones when none is, or keep them.

    Errors are those of `require_library`, `downloaded`, `open_lsun` and `prepare`. Main thread only.
    """
    form = OutputForm(
        choices=request,
        name=request.name,
        size=request.size,
        channels=3,
        recipe=request.recipe,
        keep_same=True,
    )
    check_form(form)
    for split, _ in request.wanted:
        require_split(request.category, split)
    require_library()
    for split, location in request.wanted:
        if location is not None:
            require_there(location, _GIVE)
        require_free(form.target(split), form)
    with preparing(listener) as course, contextlib.ExitStack() as stack:
        found = {
            split: kept_split(
                announced_lsun(request.category, split, _origin_reader(request, split, location)),
                form,
                course,
                partial=request.allow_partial,
            )
            for split, location in request.wanted
        }
        missing = [(split, location) for split, location in request.wanted if found[split] is None]
        files = [(split, location or _fetched(request, split, course)) for split, location in missing]
        sources = [
            _usable(_opened(request, split, location, stack, course), request, course)
            for split, location in files
        ]
        return prepare(sources, form, course, [kept for kept in found.values() if kept is not None])


def _origin_reader(
    request: LsunRequest, split: Split, location: Path | None
) -> Callable[[PrepareProgress], Origin]:
    if location is not None:
        return lambda told: lsun_origin(location, told)
    file = PUBLISHED[request.category, split].file
    origin = published_origin(file, download_place(file, request.home))
    return lambda _told: origin


def _fetched(request: LsunRequest, split: Split, course: Course) -> Path:
    file = PUBLISHED[request.category, split].file
    url = file.url.replace(BASE_URL, request.url.rstrip("/")) if request.url else ""
    return downloaded(file, url=url, home=request.home, course=course)


def _opened(
    request: LsunRequest, split: Split, location: Path, stack: contextlib.ExitStack, course: Course
) -> LsunSource:
    listener = course.listener
    data_file = find_data_file(location)
    if data_file is None:
        with course.phase("unpacking", "bytes"):
            unpacking = unpacked(location, DATA_FILE, home=request.home, listener=listener)
            data_file = stack.enter_context(unpacking)
    # of bedroom's three million records this takes some minutes
    listener.notice(f"checking the database of split {split}")
    with course.phase("checking the database"):
        return stack.enter_context(
            open_lsun(request.category, split, location, data_file, allow_partial=request.allow_partial)
        )


def _usable(source: LsunSource, request: LsunRequest, course: Course) -> ImageSource:
    if not request.allow_partial:
        return source
    course.listener.notice("decoding all records once, to leave out those that are damaged")
    with course.phase("looking for damaged records") as told:
        found = without_damaged(source, told)
    if found.count < source.count:
        course.listener.notice(f"{source.count - found.count} damaged records are left out")
    return found
