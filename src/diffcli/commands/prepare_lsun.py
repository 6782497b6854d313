"""`prepare lsun`: one category, fetched or from files that are there."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffcli.commands.downloading import downloaded
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
    find_data_file,
    open_lsun,
    require_library,
)
from diffcli.data.sources.named_files import require_there
from diffcli.data.sources.source import ImageSource
from diffcli.data.sources.whole_images import without_damaged
from diffcli.records.datasets import UNHEARD, PrepareListener, PrepareResult

_SPLITS: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class LsunRequest(OutputChoices):
    """Prepare the splits that are given; size: height and width, pixels.

    allow_partial: also when the count differs from the published, and without the records that are damaged.
    """

    category: Category
    size: int
    train: Path | None = None
    val: Path | None = None
    recipe: ResizeRecipe | Literal["box"] = "box"
    allow_partial: bool = False

    @property
    def name(self) -> str:
        """Of the dataset, such as lsun_bedroom_256."""
        return f"lsun_{self.category}_{self.size}"


def fetched(request: LsunRequest, *, url: str = "", listener: PrepareListener = UNHEARD) -> LsunRequest:
    """The request with all published zips of its category; url: of a mirror of http://dl.yf.io/lsun.

    Errors: those of `require_library` and `downloaded`.
    """
    require_library()
    found: dict[Split, Path] = {}
    for split in _SPLITS:
        published = PUBLISHED.get((request.category, split))
        if published is not None:
            address = published.file.url.replace(BASE_URL, url.rstrip("/")) if url else ""
            found[split] = downloaded(published.file, url=address, home=request.home, listener=listener)
    return dataclasses.replace(request, train=found.get("train"), val=found.get("val"))


def prepare_lsun(request: LsunRequest, listener: PrepareListener = UNHEARD) -> PrepareResult:
    """Write the splits that are given, or keep them; errors are those of `open_lsun` and of `prepare`."""
    form = OutputForm(
        choices=request,
        name=request.name,
        size=request.size,
        channels=3,
        recipe=request.recipe,
        keep_same=True,
    )
    check_form(form)
    require_library()
    given: dict[Split, Path | None] = {"train": request.train, "val": request.val}
    with contextlib.ExitStack() as stack:
        sources = [
            _usable(_opened(request, split, location, stack, listener), request, listener)
            for split, location in given.items()
            if location is not None
        ]
        return prepare(sources, form, listener)


def _opened(
    request: LsunRequest,
    split: Split,
    location: Path,
    stack: contextlib.ExitStack,
    listener: PrepareListener,
) -> LsunSource:
    require_there(location, "give the zip as it was published, its directory, or data.mdb")
    data_file = find_data_file(location)
    if data_file is None:
        home = request.home
        data_file = stack.enter_context(unpacked(location, DATA_FILE, home=home, listener=listener))
    # of bedroom's three million records this takes some minutes
    listener.notice(f"checking the database of split {split}")
    return stack.enter_context(
        open_lsun(request.category, split, location, data_file, allow_partial=request.allow_partial)
    )


def _usable(source: LsunSource, request: LsunRequest, listener: PrepareListener) -> ImageSource:
    if not request.allow_partial:
        return source
    listener.notice("decoding all records once, to leave out those that are damaged")
    found = without_damaged(source, listener.progress)
    if found.count < source.count:
        listener.notice(f"{source.count - found.count} damaged records are left out")
    return found
