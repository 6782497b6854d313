"""What a record of an evaluation says of the program and the machine that it ran on."""

from __future__ import annotations

from datetime import UTC, datetime

from diffcli.config.sections import Precision
from diffcli.records.evaluations import EvaluationConditions
from diffcli.registry.provenance import installed_versions, source_commit
from diffcli.workers import Workers


def evaluation_conditions(
    workers: Workers, *, batch_size: int, precision: Precision, command_line: tuple[str, ...]
) -> EvaluationConditions:
    """As they are when an evaluation begins."""
    versions = installed_versions()
    return EvaluationConditions(
        batch_size=batch_size,
        # without its number, which differs between processes
        device=workers.device.type,
        threads=workers.threads,
        precision=precision,
        diffcli=versions.diffcli,
        git_commit=source_commit(),
        python=versions.python,
        torch=versions.torch,
        numpy=versions.numpy,
        platform=versions.platform,
        command_line=command_line,
        started_at=datetime.now(UTC),
        seconds=0.0,
        world_size=workers.world_size,
    )
