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
from diffcli.data.sources.source import Announced, ImageSource, Origin, ReferenceNames
from diffcli.data.squares import SquareFormat, SquareRecipe
from diffcli.errors import UsageError
from diffcli.images.decode import DECODER, printable
from diffcli.images.encode import PNG, EncodingChoice
from diffcli.records.datasets import DATASET_SCHEMA, DatasetFormat, DatasetRecord, Encoding, Layout

_LARGEST_SIZE = 4096
_LARGEST_PACKED = 64
_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class OutputChoices:
    """What every form of `prepare` lets its user choose.

    home: of the data; force: replace what is there; format: "auto" is packed up to 64x64, shards above;
    encoding: in shards, None is JPEG; quality: of JPEG, 1..100, None is 95; layout: "folder" is a directory
    of PNG files under the names that the reference gives them, in place of a prepared dataset.
    """

    home: Path
    force: bool = False
    format: DatasetFormat | Literal["auto"] = "auto"
    encoding: Encoding | None = None
    quality: int | None = None
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

    @property
    def encoding(self) -> EncodingChoice | None:
        """Of each image, None when it is stored as plain pixels."""
        if self.choices.layout == "folder":
            return PNG
        if self.format == "packed":
            return None
        name = self.choices.encoding or "jpeg"
        return EncodingChoice(name=name, quality=(self.choices.quality or _QUALITY) if name == "jpeg" else 0)

    def target(self, split: str, names: ReferenceNames = ReferenceNames()) -> Path:  # noqa: B008 -- frozen
        """Where a split goes; names: of its source."""
        if self.choices.layout == "folder":
            return self.choices.home / (names.directory or f"{self.name}_{split}")
        return self.choices.home / self.name / split


def check_form(form: OutputForm) -> None:
    """UsageError for a size, channels or a name that cannot be; call it before a source is opened."""
    if not 1 <= form.size <= _LARGEST_SIZE:
        raise UsageError(
            f"--size is {form.size}", remedy=f"give a number of pixels from 1 to {_LARGEST_SIZE}"
        )
    _check_encoding(form)
    if form.channels not in (1, 3):
        raise UsageError(f"--channels is {form.channels}", remedy="give 1 for gray or 3 for RGB")
    if form.name != printable(form.name) or "/" in form.name or form.name.startswith("."):
        raise UsageError(
            f"{printable(form.name)!r} cannot name a dataset",
            where="--name",
            remedy="use a name without slashes and control characters that does not begin with a dot",
        )


def _check_encoding(form: OutputForm) -> None:
    """UsageError for a choice that nothing would be stored by."""
    choices = form.choices
    if choices.quality is not None and not 1 <= choices.quality <= 100:
        raise UsageError(f"--quality is {choices.quality}", remedy="give a number from 1 to 100")
    if choices.layout == "folder":
        other, remedy = "--layout folder", "leave one of them out: a folder holds PNG files"
        useless = [] if choices.format == "auto" else [f"--format {choices.format}"]
    else:
        other = f"the packed format, which is that of {form.size}x{form.size}"
        remedy = "add --format shards, or leave it out: packed images are plain pixels"
        useless = []
    if choices.layout == "folder" or form.format == "packed":
        useless += [f"--encoding {choices.encoding}"] if choices.encoding is not None else []
        useless += [f"--quality {choices.quality}"] if choices.quality is not None else []
    elif choices.quality is not None and choices.encoding not in (None, "jpeg"):
        useless = [f"--quality {choices.quality}"]
        other, remedy = f"--encoding {choices.encoding}", "leave it out: only JPEG has one"
    if useless:
        verb = "does" if len(useless) == 1 else "do"
        raise UsageError(f"{' and '.join(useless)} {verb} not go with {other}", remedy=remedy)


def in_form(record: DatasetRecord, form: OutputForm) -> DatasetRecord:
    """The record as it is of this form; all else stays."""
    stored = form.encoding if form.format == "shards" else None
    return dataclasses.replace(
        record,
        name=form.name,
        height=form.size,
        width=form.size,
        channels=form.channels,
        resize_recipe=form.recipe,
        format=form.format,
        encoding=stored.name if stored else "",
        quality=stored.quality if stored else 0,
        images_per_shard=images_per_shard(form.size) if stored else 0,
    )


def facts_of(source: Announced, form: OutputForm) -> DatasetRecord:
    """The record without what is known only at the end: hash and origin."""
    facts = source.facts
    record = DatasetRecord(
        schema=DATASET_SCHEMA,
        name="",
        variant=facts.variant,
        split=facts.split,
        split_rule=facts.split_rule,
        count=source.count,
        height=0,
        width=0,
        channels=0,
        class_names=facts.class_names,
        label_source=facts.label_source,
        resize_recipe="",
        source_url="",
        source_bytes=0,
        source_sha256="",
        content_hash="",
        diffcli_version=__version__,
        format="",
        encoding="",
        quality=0,
        images_per_shard=0,
        shard_sha256=(),
    )
    return in_form(record, form)


def with_origin(facts: DatasetRecord, origin: Origin) -> DatasetRecord:
    """The record with where the images came from."""
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
