"""What `runs prune` shows: each thing that goes, then how much it frees."""

from __future__ import annotations

from diffcli.console.numbers import bytes_text
from diffcli.console.rows import print_rows
from diffcli.console.terminal import print_notice
from diffcli.records.run_pruning import Pruning

_COLUMNS = ("id", "what", "step", "size")
_SHOWN = 10


def draw_pruned(pruning: Pruning, *, dry_run: bool) -> None:
    """One row for each thing that went, or would."""
    rows = [
        (entry.run_id, entry.kind, str(entry.step), bytes_text(entry.size_bytes))
        for entry in pruning.superfluous
    ]
    print_rows([_COLUMNS, *rows])
    freed = "would be freed" if dry_run else "freed"
    print_notice(f"{freed}: {bytes_text(pruning.size_bytes)}")


def pruning_question(pruning: Pruning) -> str:
    """What `prune` asks."""
    listed = [f"{entry.kind} {entry.run_id}@{entry.step}" for entry in pruning.superfluous]
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return f"Delete {', '.join(listed[:_SHOWN])}{more} ({bytes_text(pruning.size_bytes)}) for good?"
