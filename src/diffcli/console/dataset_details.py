"""Prepared datasets on the screen: rows for people and for pipes, JSON for programs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence

from diffcli.console.numbers import bytes_text, duration_text
from diffcli.console.progress import WorkProgress
from diffcli.console.rows import print_rows, printable, stdout_is_watched
from diffcli.console.terminal import print_json, print_next, print_notice, print_result, rich_console
from diffcli.records.dataset_details import DatasetDetails, DatasetListing, DatasetRow, VerifyResult
from diffcli.records.datasets import PrepareListener
from diffcli.registry.json_records import encode

_SCHEMA = 1
_COLUMNS = ("name", "split", "images", "size", "format", "classes", "bytes", "hash")
_COLUMN_GAP = 2
_HASH_LETTERS = 12


@contextlib.contextmanager
def verifying() -> Iterator[PrepareListener]:
    """Shows how far a verification is."""
    with WorkProgress("verifying", "images") as progress:
        yield PrepareListener(
            progress=progress,
            on_stop=lambda _number: progress.notice("stopping"),
            notice=progress.notice,
        )


def print_details_json(record: DatasetListing | VerifyResult | DatasetDetails) -> None:
    """Any of the records as one JSON object."""
    print_json({"schema": _SCHEMA, **encode(record)})


def draw_listing(listing: DatasetListing) -> None:
    """Draw a list of datasets; what is wrong with one goes to stderr."""
    if not listing.datasets:
        if not stdout_is_watched():
            print_rows([_COLUMNS])
        print_notice(printable(f"nothing is prepared in {listing.home}"))
        print_next("diffcli prepare digits")
        return
    _draw([_COLUMNS, *(_cells(row) for row in listing.datasets)])
    for row in listing.datasets:
        if row.problem:
            print_notice(printable(f"{row.name}/{row.split}: {row.problem}"))


def draw_verified(result: VerifyResult) -> None:
    """Tell what was found to be as it was written, one split a line."""
    for split in result.splits:
        decoded = ", all decoded" if split.decoded else ""
        print_notice(
            f"{split.split}: {split.count} images{decoded}; {bytes_text(split.size_bytes)} as they were "
            f"written; {duration_text(split.seconds)}"
        )
        print_result(f"{split.split}\t{printable(str(split.path))}\t{split.content_hash}")


def draw_details(details: DatasetDetails) -> None:
    """Draw the facts of a dataset, its classes, and where its picture is."""
    _draw(list(_facts(details)))
    print_notice(f"{details.grid_images} images, spread evenly: {printable(str(details.grid))}")
    print_next(f"diffcli train --preset PRESET --data {printable(str(details.row.path))}")


def _facts(details: DatasetDetails) -> Iterator[tuple[str, str]]:
    row = details.row
    yield "dataset", f"{row.name}, {row.split}"
    yield "path", str(row.path)
    yield "images", f"{row.count} of {row.width}x{row.height}x{row.channels}"
    quality = f", quality {details.quality}" if details.quality else ""
    yield "format", _format(row) + quality
    yield "bytes", str(row.size_bytes)
    yield "hash", row.content_hash
    yield "source", f"{details.source_url} ({bytes_text(details.source_bytes)})"
    for name, value in (
        ("source sha256", details.source_sha256),
        ("variant", details.variant),
        ("split rule", details.split_rule),
        ("resized", details.resize_recipe),
        ("labels by", details.label_source),
        ("prepared by", f"diffcli {details.diffcli_version}"),
    ):
        if value:
            yield name, value
    for found in details.class_counts:
        yield f"class {found.name}", str(found.count)
    yield "picture", str(details.grid)


def _cells(row: DatasetRow) -> tuple[str, ...]:
    if row.problem:
        return (row.name, row.split, "unreadable", *("-" for _ in _COLUMNS[3:]))
    return (
        row.name,
        row.split,
        str(row.count),
        f"{row.width}x{row.height}x{row.channels}",
        _format(row),
        str(row.classes),
        bytes_text(row.size_bytes),
        row.content_hash[:_HASH_LETTERS],
    )


def _format(row: DatasetRow) -> str:
    return f"{row.format} {row.encoding}" if row.encoding else row.format


def _draw(rows: Sequence[Sequence[str]]) -> None:
    if not stdout_is_watched():
        print_rows(rows)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, _COLUMN_GAP, 0, 0))
    for row in rows:
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
    rich_console(sys.stdout).print(table)
