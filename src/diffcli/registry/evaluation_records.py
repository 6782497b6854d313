"""evals/: the records of a run's evaluations, each read for itself, so that a broken one hides no other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffcli.errors import CorruptError, StorageError
from diffcli.records.evaluations import EVALUATION_SCHEMA, LikelihoodEvaluation
from diffcli.records.image_evaluations import IMAGE_EVALUATION_SCHEMA, ImageEvaluation
from diffcli.records.run_details import EvaluationSummary
from diffcli.registry.ids import entry_names
from diffcli.registry.json_records import decode_file, read_object
from diffcli.registry.paths import RunPaths

_SUFFIX = ".json"


@dataclass(frozen=True, kw_only=True)
class _KnownKind:
    """A kind of evaluation that can be read here."""

    record: type[LikelihoodEvaluation] | type[ImageEvaluation]
    schema: int


_KINDS = {
    LikelihoodEvaluation.kind: _KnownKind(record=LikelihoodEvaluation, schema=EVALUATION_SCHEMA),
    ImageEvaluation.kind: _KnownKind(record=ImageEvaluation, schema=IMAGE_EVALUATION_SCHEMA),
}


def evaluations_of(run: RunPaths) -> tuple[EvaluationSummary, ...]:
    """The evaluations of a run by name; StorageError when the directory is there and cannot be listed."""
    return tuple(
        _summary(run.evaluations / name)
        for name in sorted(entry_names(run.evaluations))
        if name.endswith(_SUFFIX) and not name.startswith(".")
    )


def _summary(path: Path) -> EvaluationSummary:
    kind, evaluation, problem = None, None, None
    try:
        content = read_object(path)
        found = content.get("kind")
        kind = found if isinstance(found, str) else None
        if kind is None:
            problem = f"{path}: kind is missing or no text"
        elif kind in _KINDS:
            known = _KINDS[kind]
            evaluation = decode_file(known.record, content, path, schema=known.schema, partly=True)
    except (CorruptError, StorageError) as error:
        problem = error.what
    return EvaluationSummary(
        name=path.name.removesuffix(_SUFFIX), path=path, kind=kind, evaluation=evaluation, problem=problem
    )
