"""What to make of the images of a source: the form, the record it will have, and its fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffcli import __version__
from diffcli.data.shard_files import images_per_shard
from diffcli.data.sources.source import ImageSource
from diffcli.data.squares import SquareFormat, SquareRecipe
from diffcli.errors import UsageError
from diffcli.images.decode import DECODER, printable
from diffcli.records.datasets import DATASET_SCHEMA, DatasetFormat, DatasetRecord, Encoding, Layout

_LARGEST_SIZE = 4096
_LARGEST_PACKED = 64


@dataclass(frozen=True, kw_only=True)
class OutputChoices:
    """What every form of `prepare` lets its user choose.

    home: of the data; force: replace what is there; format: "auto" is packed up to 64x64, shards above;
    encoding: in shards; quality: of JPEG, 1..100; layout: "folder" is a directory of PNG files under the
    names that the reference gives them, in place of a prepared dataset.
    """

    home: Path
    force: bool = False
    format: DatasetFormat | Literal["auto"] = "auto"
    encoding: Encoding = "jpeg"
    quality: int = 95
    layout: Layout = "dataset"


@dataclass(frozen=True, kw_only=True)
class OutputForm:
    """What to make of the images of a source.

    name: of the dataset; size: height and width, pixels; channels: 1 gray, 3 RGB; recipe: "" when the images
    have that size; keep_same: a split that is there and came from the same source in the same form is
    verified and kept, instead of refused.
    """

    choices: OutputChoices
    name: str
    size: int
    channels: int
    recipe: SquareRecipe
    keep_same: bool = False

    @property
    def square(self) -> SquareFormat:
        """What every image is brought to."""
        return SquareFormat(resolution=self.size, recipe=self.recipe, channels=self.channels)

    @property
    def format(self) -> DatasetFormat:
        """The format that was asked for, or that suits the size."""
        if self.choices.format == "auto":
            return "packed" if self.size <= _LARGEST_PACKED else "shards"
        return self.choices.format

    def target(self, source: ImageSource) -> Path:
        """Where a split of a source goes."""
        if self.choices.layout == "folder":
            directory = source.facts.reference_names.directory or f"{self.name}_{source.facts.split}"
            return self.choices.home / directory
        return self.choices.home / self.name / source.facts.split


def check_form(form: OutputForm) -> None:
    """UsageError for a size, channels or a name that cannot be; call it before a source is opened."""
    if not 1 <= form.size <= _LARGEST_SIZE:
        raise UsageError(
            f"--size is {form.size}", remedy=f"give a number of pixels from 1 to {_LARGEST_SIZE}"
        )
    if not 1 <= form.choices.quality <= 100:
        raise UsageError(f"--quality is {form.choices.quality}", remedy="give a number from 1 to 100")
    if form.choices.layout == "folder" and form.choices.format != "auto":
        raise UsageError(
            f"--format {form.choices.format} does not go with --layout folder",
            remedy="leave one of them out: a folder holds PNG files",
        )
    if form.channels not in (1, 3):
        raise UsageError(f"--channels is {form.channels}", remedy="give 1 for gray or 3 for RGB")
    if form.name != printable(form.name) or "/" in form.name or form.name.startswith("."):
        raise UsageError(
            f"{printable(form.name)!r} cannot name a dataset",
            where="--name",
            remedy="use a name without slashes and control characters that does not begin with a dot",
        )


def facts_of(source: ImageSource, form: OutputForm) -> DatasetRecord:
    """The record without what is known only at the end: hash and origin."""
    facts, choices = source.facts, form.choices
    in_shards = form.format == "shards"
    return DatasetRecord(
        schema=DATASET_SCHEMA,
        name=form.name,
        variant=facts.variant,
        split=facts.split,
        split_rule=facts.split_rule,
        count=source.count,
        height=form.size,
        width=form.size,
        channels=form.channels,
        class_names=facts.class_names,
        label_source=facts.label_source,
        resize_recipe=form.recipe,
        source_url="",
        source_bytes=0,
        source_sha256="",
        content_hash="",
        diffcli_version=__version__,
        format=form.format,
        encoding=choices.encoding if in_shards else "",
        quality=choices.quality if in_shards and choices.encoding == "jpeg" else 0,
        images_per_shard=images_per_shard(form.size) if in_shards else 0,
        shard_sha256=(),
    )


def with_origin(facts: DatasetRecord, source: ImageSource) -> DatasetRecord:
    origin = source.origin()
    return dataclasses.replace(
        facts, source_url=origin.url, source_bytes=origin.size_bytes, source_sha256=origin.sha256
    )


def fingerprint(source: ImageSource, form: OutputForm) -> str:
    """A digest of all that decides what is written, so that nothing is mixed of two preparations."""
    labels = "" if source.labels is None else hashlib.sha256(source.labels.tobytes()).hexdigest()
    read_from = {"source": source.identity(), "labels": labels, "decoder": DECODER}
    written_as = {
        "layout": form.choices.layout,
        "names": dataclasses.asdict(source.facts.reference_names),
    }
    facts = dataclasses.asdict(facts_of(source, form)) | read_from | written_as
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
