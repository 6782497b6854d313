"""What `train` shows before and after training."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffcli.console.numbers import bytes_text, significant
from diffcli.console.rows import print_rows, stdout_is_watched
from diffcli.console.terminal import (
    print_json,
    print_next,
    print_notice,
    print_result,
    rich_console,
)
from diffcli.records.plans import TrainingPlan
from diffcli.records.training import TrainingResult

if TYPE_CHECKING:
    from diffcli.config.presets import PresetInfo

SCHEMA = 1


def show_presets(presets: Sequence[PresetInfo], *, as_json: bool) -> None:
    """The presets, one a line."""
    if as_json:
        print_json({"schema": SCHEMA, "presets": [dataclasses.asdict(preset) for preset in presets]})
        return
    rows = [(preset.name, preset.title) for preset in presets]
    _show_rows(("preset", "what it is"), rows)
    print_next("diffcli train --preset NAME --dry-run")


def show_plan(plan: TrainingPlan, *, as_json: bool) -> None:
    """Every setting with its origin, then what the training needs."""
    if as_json:
        print_json({"schema": SCHEMA} | dataclasses.asdict(plan))
        return
    _show_rows(
        ("setting", "value", "from"),
        [(setting.path, setting.value, setting.origin) for setting in plan.settings],
    )
    print_result("")
    facts = [
        ("parameters", f"{plan.parameters:,}"),
        ("steps", f"{plan.steps:,} ({plan.images:,} images)"),
        (
            "memory, about",
            f"{bytes_text(plan.state_bytes + plan.activation_bytes)} in one process: "
            f"{bytes_text(plan.state_bytes)} weights and optimizer, "
            f"{bytes_text(plan.activation_bytes)} activations at microbatch {plan.microbatch}"
            + ("; auto takes a smaller one if that does not fit" if plan.microbatch_is_auto else ""),
        ),
        ("checkpoint", bytes_text(plan.checkpoint_bytes)),
        (
            "disk, about",
            f"{bytes_text(plan.disk_bytes)} for the run, {bytes_text(plan.free_disk_bytes)} are free",
        ),
        ("data", plan.dataset),
    ]
    for name, value in facts:
        print_result(f"{name}\t{value}")
    if not plan.dataset_ready:
        print_notice(f"not ready: {plan.dataset}\n  {plan.remedy}")
    else:
        print_notice("nothing was started; the same line without --dry-run trains")


def show_training_result(result: TrainingResult, *, as_json: bool) -> None:
    """How the training ended."""
    if not result.is_first:
        return
    if as_json:
        print_json({"schema": SCHEMA} | dataclasses.asdict(result) | {"directory": str(result.directory)})
        return
    loss = f"\tloss {significant(result.last_loss)}" if result.last_loss is not None else ""
    print_result(f"{result.run_id}\t{result.state}\tstep {result.step}/{result.total_steps}{loss}")
    sample = f"diffcli sample {result.run_id}"
    if result.model_kind == "classifier":
        sample = f"diffcli sample RUN --classifier {result.run_id}"
    print_next(sample, f"diffcli runs show {result.run_id}")


def _show_rows(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table on a terminal, tab-separated rows elsewhere."""
    if not stdout_is_watched():
        print_rows((header, *rows))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    rich_console(sys.stdout).print(table)
