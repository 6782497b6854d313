"""`prepare verify` and `prepare show`: a prepared dataset read once more, all of it or a picture's worth."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from diffcli.commands.course import Course
from diffcli.commands.dataset_listing import dataset_row, size_bytes, splits_named
from diffcli.commands.interruption import StopRequests
from diffcli.data.dataset import open_prepared
from diffcli.data.prepared import PreparedDataset
from diffcli.data.sharded import ShardedDataset
from diffcli.errors import CorruptError, UsageError
from diffcli.images.grid import grid, write_png
from diffcli.records.dataset_details import ClassCount, DatasetDetails, VerifiedSplit, VerifyResult
from diffcli.records.datasets import UNHEARD, PrepareListener

_GRID_IMAGES = 64
# smaller images are magnified to about this many pixels
_LEGIBLE_PIXELS = 32

Prepared = PreparedDataset | ShardedDataset


def verify(reference: str, home: Path, listener: PrepareListener = UNHEARD) -> VerifyResult:
    """Read every byte of every split, and decode the images that are encoded.

    Errors: MissingError, CorruptError that tells what is wrong with each damaged split, InterruptedRunError.
    Main thread only.
    """
    opened, damages = [], []
    for directory in splits_named(reference, home):
        try:
            opened.append(open_prepared(directory))
        except CorruptError as error:
            damages.append(error)
    verified = []
    total = sum(dataset.count for dataset in opened)
    with StopRequests(on_request=listener.on_stop) as stop:
        before = 0
        for dataset in opened:
            course = Course(
                listener=listener,
                stop=stop,
                before=before,
                total=total,
                remedy="none of these is damaged; the same command starts again from the first image",
            )
            try:
                verified.append(_verified(dataset, course))
            except CorruptError as error:
                damages.append(error)
            before += dataset.count
    if len(damages) == 1:
        raise damages[0]
    if damages:
        raise CorruptError(
            f"{len(damages)} splits are damaged",
            where="\n".join(f"{error.what}: {error.where}" for error in damages),
            remedy=damages[0].remedy,
        )
    return VerifyResult(splits=tuple(verified))


def show(reference: str, home: Path, picture: Path | None, *, force: bool) -> DatasetDetails:
    """The facts of one split, and a picture of images spread evenly over it.

    reference: with several splits that called train, or the first; picture: a PNG file, None: NAME_SPLIT.png
    here. Errors: MissingError, CorruptError, UsageError for a picture that is there and is another.
    """
    directories = splits_named(reference, home)
    directory = next((path for path in directories if path.name == "train"), directories[0])
    dataset = open_prepared(directory)
    row, record = dataset_row(directory), dataset.record
    picture = picture or Path(f"{directory.absolute().parent.name}_{directory.name}.png")
    if picture.exists() and not force:
        raise UsageError(f"{picture} is already there", remedy="give another --out, or add --force")
    chosen = np.unique(np.linspace(0, dataset.count - 1, _GRID_IMAGES).round().astype(np.int64))
    sheet = grid(dataset.read(chosen), magnify=max(1, _LEGIBLE_PIXELS // dataset.height))
    write_png(picture, sheet)
    return DatasetDetails(
        row=row,
        variant=record.variant,
        split_rule=record.split_rule,
        label_source=record.label_source,
        resize_recipe=record.resize_recipe,
        quality=record.quality,
        source_url=record.source_url,
        source_bytes=record.source_bytes,
        source_sha256=record.source_sha256,
        diffcli_version=record.diffcli_version,
        class_counts=_class_counts(dataset),
        grid=picture,
        grid_images=len(chosen),
    )


def _verified(dataset: Prepared, course: Course) -> VerifiedSplit:
    started_at = time.perf_counter()
    for done in dataset.verified():
        course.told(done)
    return VerifiedSplit(
        path=dataset.location,
        split=dataset.record.split,
        count=dataset.count,
        size_bytes=size_bytes(dataset.location),
        content_hash=dataset.content_hash,
        decoded=isinstance(dataset, ShardedDataset),
        seconds=time.perf_counter() - started_at,
    )


def _class_counts(dataset: Prepared) -> tuple[ClassCount, ...]:
    if not dataset.class_names:
        return ()
    counts = np.bincount(dataset.labels(np.arange(dataset.count)), minlength=len(dataset.class_names))
    return tuple(
        ClassCount(name=name, count=count)
        for name, count in zip(dataset.class_names, counts.tolist(), strict=True)
    )
