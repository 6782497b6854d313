"""What a run has made so far, as found in its directory."""

from __future__ import annotations

import re
from pathlib import Path

from diffcli.records.run_details import CheckpointSummary, EvaluationSummary, SampleSummary
from diffcli.registry.ids import entry_names
from diffcli.registry.paths import RunPaths
from diffcli.registry.size import size_on_disk

_CHECKPOINT = re.compile(r"step-([0-9]+)")
_MANIFEST = "manifest.json"


def checkpoints_of(run: RunPaths) -> tuple[CheckpointSummary, ...]:
    """The checkpoints by step; their contents are not read."""
    found = [
        CheckpointSummary(
            step=int(match.group(1)),
            directory=run.checkpoints / name,
            size_bytes=size_on_disk(run.checkpoints / name),
            complete=(run.checkpoints / name / _MANIFEST).is_file(),
        )
        for name in entry_names(run.checkpoints)
        if (match := _CHECKPOINT.fullmatch(name))
    ]
    return tuple(sorted(found, key=lambda checkpoint: checkpoint.step))


def samples_of(run: RunPaths) -> tuple[SampleSummary, ...]:
    """The sets of samples by name."""
    return tuple(
        SampleSummary(
            name=name,
            archive=_archive_in(run.samples / name),
            size_bytes=size_on_disk(run.samples / name),
        )
        for name in sorted(entry_names(run.samples))
        if not name.startswith(".") and (run.samples / name).is_dir()
    )


def evaluations_of(run: RunPaths) -> tuple[EvaluationSummary, ...]:
    """The records of evaluations by name."""
    return tuple(
        EvaluationSummary(name=name.removesuffix(".json"), path=run.evaluations / name)
        for name in sorted(entry_names(run.evaluations))
        if name.endswith(".json") and not name.startswith(".")
    )


def _archive_in(directory: Path) -> Path | None:
    archives = sorted(name for name in entry_names(directory) if name.endswith(".npz"))
    return directory / archives[0] if archives else None
