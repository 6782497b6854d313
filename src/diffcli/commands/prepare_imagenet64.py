"""`prepare imagenet64`: ImageNet at 64x64 in one of its two variants."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffcli.commands.downloading import downloaded
from diffcli.commands.output_form import OutputChoices, OutputForm
from diffcli.commands.preparation import nearest_existing, prepare
from diffcli.data.sources.chrabaszcz import ChrabaszczSource, open_chrabaszcz
from diffcli.data.sources.pixelrnn import ARCHIVES, open_pixelrnn
from diffcli.data.sources.wordnet_ids import read_class_map
from diffcli.errors import MissingError
from diffcli.records.datasets import UNHEARD, PrepareListener, PrepareResult

Variant = Literal["pixelrnn", "chrabaszcz"]
NAMES: dict[Variant, str] = {"pixelrnn": "imagenet64", "chrabaszcz": "imagenet64_chrabaszcz"}
_CLASS_MAP = "map_clsloc.txt"


@dataclass(frozen=True, kw_only=True)
class ImageNet64Request(OutputChoices):
    """Prepare one variant; train, val: files or directories, () for a split that is not to be prepared.

    class_map: map_clsloc.txt for the chrabaszcz variant, looked for beside the files when it is None.
    """

    variant: Variant
    train: Sequence[Path] = ()
    val: Sequence[Path] = ()
    class_map: Path | None = None
    allow_partial: bool = False


def fetched(
    request: ImageNet64Request, *, url: str, listener: PrepareListener = UNHEARD
) -> ImageNet64Request:
    """The request with both archives of the pixelrnn variant from a mirror's directory.

    MissingError without one, as the links are dead; otherwise errors as `downloaded`.
    """
    if not url:
        raise MissingError(
            "the links of ImageNet 64x64 (PixelRNN) are dead",
            where=f"they were {ARCHIVES['train'].url} and {ARCHIVES['val'].url}",
            remedy=ARCHIVES["train"].otherwise,
        )
    train, val = (
        downloaded(file, url=f"{url.rstrip('/')}/{file.name}", home=request.home, listener=listener)
        for file in (ARCHIVES["train"], ARCHIVES["val"])
    )
    return dataclasses.replace(request, train=[train], val=[val])


def prepare_imagenet64(request: ImageNet64Request, listener: PrepareListener = UNHEARD) -> PrepareResult:
    """Write the splits that are given, or keep them; errors are those of the sources and of `prepare`."""
    form = OutputForm(
        choices=request,
        name=NAMES[request.variant],
        size=64,
        channels=3,
        recipe="",
        keep_same=True,
    )
    with contextlib.ExitStack() as stack:
        if request.variant == "chrabaszcz":
            return prepare(_chrabaszcz_sources(request), form, listener)
        sources = [
            stack.enter_context(open_pixelrnn(split, location, allow_partial=request.allow_partial))
            for split, locations in (("train", request.train), ("val", request.val))
            for location in locations[:1]
        ]
        result = prepare(sources, form, listener)
    return dataclasses.replace(result, passed_over=sum(source.passed_over for source in sources))


def _chrabaszcz_sources(request: ImageNet64Request) -> list[ChrabaszczSource]:
    class_map = read_class_map(request.class_map or _class_map_beside([*request.train, *request.val]))
    scratch = nearest_existing(request.home)
    return [
        open_chrabaszcz(split, locations, class_map, scratch=scratch, allow_partial=request.allow_partial)
        for split, locations in (("train", request.train), ("val", request.val))
        if locations
    ]


def _class_map_beside(locations: Sequence[Path]) -> Path:
    for location in locations:
        for directory in (location, location.parent):
            if (directory / _CLASS_MAP).is_file():
                return directory / _CLASS_MAP
    raise MissingError(
        "the numbers of the classes in these files mean nothing without their map",
        where=f"there is no {_CLASS_MAP} beside them",
        remedy=f"give {_CLASS_MAP}, from the devkit of the ILSVRC localization task, with --class-map",
    )
