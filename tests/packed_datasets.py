"""Prepared datasets of any arrays, written as `prepare` writes them."""

from __future__ import annotations

import dataclasses
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffcli.data.packed_writer import packed_writer
from diffcli.data.record_file import write_record
from diffcli.data.squares import SquareFormat
from diffcli.data.staging import staged_directory
from diffcli.records.datasets import DATASET_SCHEMA, DatasetRecord


def facts_of(images: NDArray[np.uint8], class_names: tuple[str, ...]) -> DatasetRecord:
    """What is known of images [N, H, W, C] before they are written."""
    count, height, width, channels = images.shape
    return DatasetRecord(
        schema=DATASET_SCHEMA,
        name="tiny",
        variant="",
        split="train",
        split_rule="",
        count=count,
        height=height,
        width=width,
        channels=channels,
        class_names=class_names,
        label_source="filename" if class_names else "none",
        resize_recipe="guided",
        source_url="file:///tiny",
        source_bytes=1,
        source_sha256="",
        content_hash="",
        diffcli_version="0",
        format="packed",
        encoding="",
        quality=0,
        images_per_shard=0,
        shard_sha256=(),
    )


def write_packed(target, record, images, labels, *, replace=False, request="this"):
    """Write images of any shape, as the writer takes them once they are decoded."""
    square = SquareFormat(resolution=record.height, recipe="", channels=record.channels)
    with staged_directory(target, request=request, replace=replace) as staging:
        with packed_writer(staging, record, square, lambda _again: None) as writer:
            for image in islice(images, writer.done, None):
                writer.add(image)
            written = writer.finish(labels)
        record = dataclasses.replace(record, content_hash=written.content_hash)
        write_record(staging.directory, record, labels)
    return record


def write_dataset(
    target: Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64] | None,
    class_names: tuple[str, ...],
    *,
    replace: bool = False,
) -> DatasetRecord:
    """Write images [N, H, W, C] and their labels."""
    return write_packed(target, facts_of(images, class_names), images, labels, replace=replace)
