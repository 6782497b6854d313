"""`prepare cifar10`: fetch the archive, or take one that is there, and prepare both splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.course import Course, preparing
from diffcli.commands.downloading import download_place, downloaded
from diffcli.commands.kept_splits import kept_split, require_free
from diffcli.commands.output_form import OutputChoices, OutputForm, check_form
from diffcli.commands.preparation import nearest_existing, prepare
from diffcli.data.sources.cifar10 import ARCHIVE, Cifar10Source, announced_cifar10, read_cifar10
from diffcli.data.sources.published import AnnouncedSplit, published_origin
from diffcli.data.sources.source import file_origin
from diffcli.records.datasets import UNHEARD, PrepareListener, PrepareResult

NAME = "cifar10"


@dataclass(frozen=True, kw_only=True)
class Cifar10Request(OutputChoices):
    """Prepare CIFAR-10 at its own size.

    source: the python or binary archive, or its directory, None to fetch it; url: of a mirror of the python
    archive, "" for the published one; allow_partial: also when it differs from the published.
    """

    source: Path | None = None
    url: str = ""
    allow_partial: bool = False


def prepare_cifar10(request: Cifar10Request, listener: PrepareListener = UNHEARD) -> PrepareResult:
    """Write the splits that are there, or keep them.

    Errors are those of `downloaded`, `read_cifar10` and `prepare`. Main thread only.
    """
    form = OutputForm(choices=request, name=NAME, size=32, channels=3, recipe="", keep_same=True)
    check_form(form)
    with preparing(listener) as course:
        announced = _announced(request)
        for split in announced:
            require_free(form.target(split.facts.split, split.facts.reference_names), form)
        found = [kept_split(split, form, course, partial=request.allow_partial) for split in announced]
        kept = [split for split in found if split is not None]
        if announced and len(kept) == len(announced):
            return prepare([], form, course, kept)
        sources = _read(request, course)
        missing = [source for source in sources if source.facts.split not in {split.split for split in kept}]
        return prepare(missing, form, course, kept)


def _announced(request: Cifar10Request) -> list[AnnouncedSplit]:
    """The published splits; none of a directory, which is read as fast as it is looked at."""
    source = request.source
    if source is None:
        origin = published_origin(ARCHIVE, download_place(ARCHIVE, request.home))
        return announced_cifar10(lambda _progress: origin)
    if source.is_file():
        return announced_cifar10(lambda progress: file_origin(source, progress))
    return []


def _read(request: Cifar10Request, course: Course) -> list[Cifar10Source]:
    source = request.source or downloaded(ARCHIVE, url=request.url, home=request.home, course=course)
    with course.phase("reading the archive", "bytes") as told:
        return read_cifar10(
            source,
            scratch=nearest_existing(request.home),
            allow_partial=request.allow_partial,
            progress=told,
        )
