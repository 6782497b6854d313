"""Whether the name of a record is that of another one, told before hours of sampling."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.image_evaluation_record import evaluation_in
from diffcli.commands.image_evaluation_request import ImageEvaluationRequest
from diffcli.commands.open_evaluation import OpenEvaluation
from diffcli.commands.sampling_request import find_order, kept_steps
from diffcli.commands.sweep_points import pinned_checkpoint
from diffcli.commands.weights import weights_name
from diffcli.errors import DiffcliError, UsageError
from diffcli.records.image_evaluations import (
    EvaluatedSet,
    ExtractorFacts,
)
from diffcli.records.sweeps import SWEEP_SCHEMA, Sweep, SweepAxis
from diffcli.registry.create import Run
from diffcli.registry.json_records import read_record


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """What a record compares, as far as it is known before samples are drawn."""

    run: str
    checkpoint: int
    samples: int
    reference: tuple[str, int] | None
    extractor: str


def check_name_free(opened: OpenEvaluation, request: ImageEvaluationRequest) -> None:
    """UsageError where the record of samples still to be drawn would lie in another one's place.

    A record that differs in nothing that is known by now is left for later to judge.
    """
    run = opened.target.run
    if run is None or opened.samples is not None or request.force:
        return
    path = request.out or _named(run, request.name)
    if path is not None and path.exists() and not _may_be_there(path, run, opened, request):
        raise UsageError(
            f"{path} is there already, and is another evaluation",
            remedy="give another --name, or replace it with --force",
        )


def check_sweep_name_free(
    opened: OpenEvaluation, request: ImageEvaluationRequest, axes: tuple[SweepAxis, ...], checkpoint: int
) -> None:
    """UsageError where the name of a sweep is that of something else."""
    run = opened.target.run
    assert run is not None, "a sweep is of a run"
    path = _named(run, request.name)
    if path is None or request.force or not path.exists():
        return
    there = sweep_in(path)
    if (
        there is None
        or there.axes != axes
        or _compared(there.run, there.checkpoint, there.samples, there.reference, there.extractor)
        != _to_be_compared(opened, request, run, checkpoint)
    ):
        raise name_taken(path)


def sweep_in(path: Path) -> Sweep | None:
    """The sweep that a file records, None for anything else."""
    try:
        return read_record(Sweep, path, schema=SWEEP_SCHEMA, partly=True)
    except DiffcliError:
        return None


def name_taken(path: Path) -> UsageError:
    """Of a sweep whose name another record has."""
    return UsageError(
        f"{path} is there already, and is another evaluation",
        remedy="give another --name; the points that are evaluated need not be again",
    )


def _may_be_there(path: Path, run: Run, opened: OpenEvaluation, request: ImageEvaluationRequest) -> bool:
    """Whether the record at a path may be of this very request."""
    there, sampling = evaluation_in(path), request.sampling
    if there is None or there.model is None or there.sampling is None:
        return False
    model, drawn = there.model, there.sampling
    config = find_order(sampling).config
    found = _compared(model.run, model.checkpoint, there.samples.count, there.reference, there.extractor)
    return (
        found == _to_be_compared(opened, request, run, pinned_checkpoint(run, sampling))
        and there.settings == request.settings
        and (drawn.seed, drawn.solver) == (sampling.seed, config.sampling.solver)
        and drawn.steps == kept_steps(config)
        and (sampling.ema_std is not None or model.weights == weights_name(config, config.sampling.ema))
    )


def _to_be_compared(
    opened: OpenEvaluation, request: ImageEvaluationRequest, run: Run, checkpoint: int
) -> _Compared:
    reference = opened.reference
    described = None
    if reference is not None:
        described = reference.described(min(request.reference_num or reference.total, reference.total))
    return _compared(run.id, checkpoint, request.drawn_count, described, opened.chosen.facts)


def _compared(
    run: str, checkpoint: int, samples: int, reference: EvaluatedSet | None, extractor: ExtractorFacts
) -> _Compared:
    return _Compared(
        run=run,
        checkpoint=checkpoint,
        samples=samples,
        reference=None if reference is None else (reference.content_hash, reference.count),
        extractor=extractor.digest,
    )


def _named(run: Run, name: str | None) -> Path | None:
    return None if name is None else run.paths.evaluations / f"{name}.json"
