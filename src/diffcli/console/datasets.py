"""What `prepare` shows."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from diffcli.console.numbers import bytes_text, duration_text
from diffcli.console.progress import WorkProgress
from diffcli.console.terminal import print_json, print_next, print_notice, print_result
from diffcli.records.datasets import PreparedSplit, PrepareListener, PrepareResult

SCHEMA = 1
_SHOWN_CLASSES = 5


@contextlib.contextmanager
def preparing() -> Iterator[PrepareListener]:
    """Shows how far a preparation is, and what it remarks."""
    with WorkProgress("preparing", "images") as progress:
        yield PrepareListener(
            progress=progress,
            begin=progress.begin,
            on_stop=lambda _number: progress.notice("stopping; what is done is kept"),
            notice=progress.notice,
        )


def show_prepared(result: PrepareResult, *, next_command: str, as_json: bool) -> None:
    """The splits of a prepared dataset, and what to type next."""
    if as_json:
        splits = [dataclasses.asdict(split) | {"path": str(split.path)} for split in result.splits]
        facts = {"name": result.name, "splits": splits, "passed_over": result.passed_over}
        print_json({"schema": SCHEMA} | facts)
        return
    if result.passed_over:
        print_notice(
            f"note: {result.passed_over} members of the source are links, devices or notes of macOS (._*) "
            "and were left out"
        )
    for split in result.splits:
        print_notice(_description(split))
        print_result(f"{split.split}\t{split.path}")
    print_next(next_command)


def _description(split: PreparedSplit) -> str:
    done = "already there" if split.already_there else f"prepared in {duration_text(split.seconds)}"
    parts = [
        f"{split.split}: {split.count} images of {split.width}x{split.height}x{split.channels}",
        bytes_text(split.size_bytes),
        done,
    ]
    if split.class_names:
        shown = ", ".join(split.class_names[:_SHOWN_CLASSES])
        more = ", ..." if len(split.class_names) > _SHOWN_CLASSES else ""
        classes = "1 class" if len(split.class_names) == 1 else f"{len(split.class_names)} classes"
        parts.append(f"{classes} by {split.label_source}: {shown}{more}")
    else:
        parts.append("no classes")
    return "; ".join(parts)
