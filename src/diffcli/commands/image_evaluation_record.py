"""The record of a comparison: what decides it, its name, its place, and whether it is there already."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from diffcli.errors import DiffcliError, UsageError
from diffcli.records.evaluations import EvaluatedModel
from diffcli.records.image_evaluations import (
    IMAGE_EVALUATION_SCHEMA,
    ImageEvaluation,
    SamplingFacts,
)
from diffcli.records.samples import SampleProvenance
from diffcli.registry.create import Run
from diffcli.registry.json_records import encode, read_record
from diffcli.registry.sample_records import FoundArchive, fingerprint

_SHORT = 6


def fingerprint_of(record: ImageEvaluation, asked: tuple[str, ...]) -> str:
    """A digest of everything that decides the numbers, so that other requests are not taken for this one."""
    reference, conditions = record.reference, record.conditions
    facts = (
        *(record.samples.identity, record.samples.count),
        *(None if reference is None else (reference.identity, reference.count),),
        *(record.extractor.digest, encode(record.settings), asked),
        *(conditions.batch_size, conditions.device, conditions.threads),
        *(conditions.diffcli, conditions.torch),
    )
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def model_of(archive: FoundArchive) -> EvaluatedModel:
    """Whose samples they are."""
    provenance = archive.provenance
    return EvaluatedModel(
        run=provenance.run,
        checkpoint=provenance.checkpoint,
        weights=provenance.weights,
        average=provenance.average,
        checkpoint_manifest_sha256=provenance.checkpoint_manifest_sha256,
    )


def sampling_of(archive: FoundArchive) -> SamplingFacts:
    """How they were drawn."""
    provenance = archive.provenance
    return SamplingFacts(
        fingerprint=fingerprint(provenance),
        solver=provenance.solver,
        steps=provenance.steps,
        model_calls=_model_calls(provenance),
        eta=provenance.eta,
        clip=provenance.clip,
        seed=provenance.seed,
        classes=provenance.classes,
        classifier=provenance.classifier,
        cfg=provenance.cfg,
        precision=provenance.precision,
        seconds=provenance.seconds,
        low_res_sha256=provenance.low_res_sha256,
        start=_start(provenance),
        drawn=provenance.drawn,
        world_size=provenance.world_size,
    )


def _start(provenance: SampleProvenance) -> str | None:
    if provenance.noise_sha256 is not None:
        return "given noise"
    return None if provenance.start is None else provenance.start.kind


def _model_calls(provenance: SampleProvenance) -> int:
    """Of the diffusion network, for each image: guidance without a classifier asks twice."""
    return provenance.steps * (1 if provenance.cfg in (None, 0, 1) else 2)


@dataclass(frozen=True, kw_only=True)
class RecordPlace:
    """Where a record goes; path: None when nothing keeps it."""

    name: str
    path: Path | None


def check_name(name: str | None) -> None:
    """UsageError for what cannot name an evaluation."""
    if name is not None and (not name.isprintable() or "/" in name or name.startswith(".") or not name):
        raise UsageError(
            f"{name!r} cannot name an evaluation",
            where="--name",
            remedy="use printable characters without slashes, the first one not a dot",
        )


def place_of(record: ImageEvaluation, run: Run | None, *, name: str | None, out: Path | None) -> RecordPlace:
    """Under the run that the samples are of, or in the file that is named."""
    chosen = name or _default_name(record)
    if out is not None:
        return RecordPlace(name=out.stem, path=out.absolute())
    return RecordPlace(name=chosen, path=None if run is None else run.paths.evaluations / f"{chosen}.json")


def recorded(place: RecordPlace, wanted: ImageEvaluation, *, force: bool) -> ImageEvaluation | None:
    """The evaluation if exactly this one is there; UsageError when another has its place, unless forced."""
    if place.path is None or force or not place.path.exists():
        return None
    there = evaluation_in(place.path)
    if there is not None and there.fingerprint == wanted.fingerprint:
        return there
    raise UsageError(
        f"{place.path} is there already, and is another evaluation",
        remedy="give another --name, or replace it with --force",
    )


def evaluation_in(path: Path) -> ImageEvaluation | None:
    """The evaluation that a file records, None for anything else."""
    try:
        return read_record(ImageEvaluation, path, schema=IMAGE_EVALUATION_SCHEMA, partly=True)
    except DiffcliError:
        return None


def _default_name(record: ImageEvaluation) -> str:
    """What matters most of it, and at the end a digest of the rest."""
    parts = [record.extractor.name]
    if record.model is not None:
        parts.append(f"step-{record.model.checkpoint:06d}-{record.model.weights}")
    if record.sampling is not None:
        parts.append(f"{record.sampling.solver}-{record.sampling.steps}-seed-{record.sampling.seed}")
    parts.append(f"n-{record.samples.count}-{record.fingerprint[:_SHORT]}")
    return "-".join(parts)


def with_fingerprint(record: ImageEvaluation, asked: tuple[str, ...]) -> ImageEvaluation:
    """The record, told apart from others."""
    return dataclasses.replace(record, fingerprint=fingerprint_of(record, asked))
