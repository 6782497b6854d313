"""One run with all that belongs to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from diffcli.errors import MissingError
from diffcli.records.run_details import (
    AttemptSummary,
    ConfigValue,
    DatasetSummary,
    ImportSummary,
    MetricValue,
    RunDetails,
    Series,
)
from diffcli.records.training import LoggedTerms, MetricRow, SampleMetric, TermMeans
from diffcli.registry.contents import (
    abandoned_of,
    checkpoints_of,
    damaged_of,
    samples_of,
    snapshots_of,
)
from diffcli.registry.create import open_run
from diffcli.registry.evaluation_records import evaluations_of
from diffcli.registry.import_record import read_import_record
from diffcli.registry.json_records import ConfigJSON
from diffcli.registry.listing import row_of
from diffcli.registry.metrics import LoggedRow, read_metrics
from diffcli.registry.paths import RunPaths
from diffcli.registry.run_record import (
    UNKNOWN_DATASET,
    Attempt,
    DatasetFacts,
    ParentCheckpoint,
    known_dataset,
    read_annotations,
    read_attempts,
)

_SERIES_POINTS = 60


def show_run(home: Path, reference: str) -> RunDetails:
    """All there is to say of a run; MissingError when there is none, CorruptError when it cannot be read."""
    run = open_run(home, reference)
    record, paths = run.record, run.paths
    row = row_of(paths, sizes=True)
    if row is None:
        raise MissingError(f"{run.id} was removed just now")
    annotations = read_annotations(paths, record)
    log = read_metrics(paths.metrics)
    return RunDetails(
        row=row,
        directory=paths.directory,
        command_line=record.command_line,
        parent=_parent_text(record.parent),
        git_commit=record.git_commit,
        tags=annotations.tags,
        note=annotations.note,
        imported=_import_summary(paths),
        dataset=_dataset_summary(known_dataset(paths, record)),
        config=tuple(_config_values(record.config)),
        attempts=tuple(_attempt_summary(attempt) for attempt in read_attempts(paths)),
        metrics_step=log.rows[-1].row.step if log.rows else None,
        metrics=tuple(_metric_values(log.rows[-1].row)) if log.rows else (),
        unreadable_metric_lines=log.unreadable_lines,
        loss_series=_loss_series(log.rows),
        checkpoints=checkpoints_of(paths, pinned=annotations.pinned_steps),
        damaged=damaged_of(paths),
        ema_snapshots=snapshots_of(paths),
        abandoned=abandoned_of(paths),
        samples=samples_of(paths),
        evaluations=evaluations_of(paths),
    )


def _parent_text(parent: ParentCheckpoint | None) -> str | None:
    return f"{parent.run_id}@{parent.step}" if parent else None


def _import_summary(run: RunPaths) -> ImportSummary | None:
    record = read_import_record(run)
    if record is None:
        return None
    files = tuple(f"{file.path} (sha256 {file.sha256})" for file in record.files)
    return ImportSummary(files=files, how=record.how, notices=record.notices)


def _dataset_summary(facts: DatasetFacts) -> DatasetSummary | None:
    if facts == UNKNOWN_DATASET:
        return None
    return DatasetSummary(
        path=facts.path,
        count=facts.count,
        classes=len(facts.class_names),
        content_hash=facts.content_hash,
        weak_hash=facts.weak_hash,
    )


def _config_values(config: ConfigJSON) -> Iterator[ConfigValue]:
    for section, settings in config.items():
        for name, value in settings.items():
            yield ConfigValue(key=f"{section}.{name}", value=value)


def _attempt_summary(attempt: Attempt) -> AttemptSummary:
    return AttemptSummary(
        number=attempt.number,
        started_at=attempt.started_at,
        first_step=attempt.first_step,
        changes=tuple(f"{change.key} = {change.after} (was {change.before})" for change in attempt.changes),
        world_size=attempt.world_size,
        device=attempt.device,
        precision=attempt.precision,
        process=f"{attempt.pid}@{attempt.host}",
    )


def _metric_values(record: object, prefix: str = "") -> Iterator[MetricValue]:
    """Every number of a row under the name of its field; a term gives its mean and its quartiles."""
    for field in fields(record):  # type: ignore[arg-type]
        value, name = getattr(record, field.name), f"{prefix}{field.name}"
        if isinstance(value, TermMeans):
            yield MetricValue(name=name, value=value.overall)
            for position, quartile in enumerate(value.quartiles):
                if quartile is not None:
                    yield MetricValue(name=f"{name}_q{position}", value=quartile)
        elif isinstance(value, (int, float)):
            yield MetricValue(name=name, value=value)
        elif isinstance(value, LoggedTerms):
            yield from _metric_values(value, f"{name}_")
        elif isinstance(value, tuple):
            yield from (MetricValue(name=metric.name, value=metric.value) for metric in _of_samples(value))
        elif value is not None:
            yield from _metric_values(value)


def _of_samples(values: tuple[object, ...]) -> Iterator[SampleMetric]:
    return (value for value in values if isinstance(value, SampleMetric))


def _loss_series(rows: Sequence[LoggedRow]) -> Series:
    """Means of equally many rows each, at most as many as a line of the terminal shows."""
    losses = [logged.row for logged in rows if math.isfinite(logged.row.loss.overall)]
    width = max(1, math.ceil(len(losses) / _SERIES_POINTS))
    chunks = [losses[start : start + width] for start in range(0, len(losses), width)]
    return Series(
        name="loss",
        steps=tuple(chunk[-1].step for chunk in chunks),
        values=tuple(_mean_loss(chunk) for chunk in chunks),
    )


def _mean_loss(rows: Sequence[MetricRow]) -> float:
    return math.fsum(row.loss.overall for row in rows) / len(rows)
