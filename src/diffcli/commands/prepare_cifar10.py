"""`prepare cifar10`: fetch the archive, or take one that is there, and prepare both splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.downloading import downloaded
from diffcli.commands.output_form import OutputChoices, OutputForm
from diffcli.commands.preparation import nearest_existing, prepare
from diffcli.data.sources.cifar10 import ARCHIVE, read_cifar10
from diffcli.records.datasets import UNHEARD, PrepareListener, PrepareResult

NAME = "cifar10"


@dataclass(frozen=True, kw_only=True)
class Cifar10Request(OutputChoices):
    """Prepare CIFAR-10 at its own size.

    source: the python or binary archive, or its directory; allow_partial: also when it differs from the
    published.
    """

    source: Path
    allow_partial: bool = False


def fetch_cifar10(home: Path, *, url: str = "", listener: PrepareListener = UNHEARD) -> Path:
    """The archive below the data home; errors and url as `downloaded`."""
    return downloaded(ARCHIVE, url=url, home=home, listener=listener)


def prepare_cifar10(request: Cifar10Request, listener: PrepareListener = UNHEARD) -> PrepareResult:
    """Write the splits that are there, or keep them; errors are those of `read_cifar10` and `prepare`."""
    form = OutputForm(choices=request, name=NAME, size=32, channels=3, recipe="", keep_same=True)
    sources = read_cifar10(
        request.source, scratch=nearest_existing(request.home), allow_partial=request.allow_partial
    )
    return prepare(sources, form, listener)
