"""How the numbers of a likelihood come about: what decides them, the name it gives, and whose place it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from diffcli import durable
from diffcli.commands.evaluation_conditions import evaluation_conditions
from diffcli.errors import CorruptError, UsageError
from diffcli.evaluation.bound_parts import BoundParts
from diffcli.records.evaluations import (
    EVALUATION_SCHEMA,
    EvaluatedImages,
    EvaluatedModel,
    EvaluationConditions,
    LikelihoodEvaluation,
    LikelihoodSettings,
)
from diffcli.registry.json_records import encode, read_record

if TYPE_CHECKING:
    from diffcli.commands.likelihood import LikelihoodJob


@dataclass(frozen=True, kw_only=True)
class LikelihoodProvenance:
    """What a record says of how its numbers came about."""

    model: EvaluatedModel
    images: EvaluatedImages
    settings: LikelihoodSettings
    conditions: EvaluationConditions

    @classmethod
    def of(cls, job: LikelihoodJob) -> LikelihoodProvenance:
        """That of a job, before its first number."""
        return cls(
            model=EvaluatedModel(
                run=job.run.id,
                checkpoint=job.loaded.step,
                weights=job.loaded.weights_name,
                average=job.loaded.average,
                checkpoint_manifest_sha256=job.loaded.manifest_sha256,
            ),
            images=job.images.described(job.run),
            settings=_settings(job),
            conditions=evaluation_conditions(
                job.process.workers,
                batch_size=job.plan.batch_size,
                precision=job.request.precision,
                command_line=job.request.command_line,
            ),
        )

    @cached_property
    def fingerprint(self) -> str:
        """A digest of everything that decides the bits of the numbers, so that requests are not mixed up."""
        images, conditions = self.images, self.conditions
        facts = (
            encode(self.model),
            encode(self.settings),
            # of a weak hash the place is part, since it sees no contents
            (images.content_hash, images.count, str(images.location) if images.weak_hash else ""),
            (conditions.batch_size, conditions.device, conditions.threads, conditions.precision),
            (conditions.diffcli, conditions.torch, conditions.numpy),
        )
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _settings(job: LikelihoodJob) -> LikelihoodSettings:
    diffusion, strata = job.diffusion, job.strata
    return LikelihoodSettings(
        seed=job.request.seed,
        clip=job.config.sampling.clip,
        timesteps=diffusion.steps,
        chain_timesteps=diffusion.original_steps,
        full_chain=diffusion.steps == diffusion.original_steps,
        estimate=not strata.every_step,
        drawn_timesteps=None if strata.every_step else strata.count,
    )


def default_name(provenance: LikelihoodProvenance) -> str:
    """What matters most of it; a second one that is alike needs a name from its user."""
    images, settings = provenance.images, provenance.settings
    parts = [
        f"nll-{images.split or 'images'}-{images.count}",
        f"step-{provenance.model.checkpoint:06d}-{provenance.model.weights}",
    ]
    if not settings.full_chain:
        parts.append(f"chain-{settings.timesteps}")
    if settings.drawn_timesteps is not None:
        parts.append(f"{settings.drawn_timesteps}-timesteps")
    if not settings.clip:
        parts.append("no-clip")
    return "-".join([*parts, f"seed-{settings.seed}"])


def stands_already(
    path: Path, provenance: LikelihoodProvenance, parts: BoundParts, *, force: bool
) -> LikelihoodEvaluation | None:
    """The record of exactly this evaluation, whose parts are then needed no longer; None for no record.

    Raises UsageError when its place is taken by another one, which force lets go.
    """
    # a name is for one evaluation at a time
    durable.clear_temporaries(path.parent, path.name)
    if force or not path.exists():
        return None
    try:
        found = read_record(LikelihoodEvaluation, path, schema=EVALUATION_SCHEMA)
    except CorruptError:
        found = None
    if found is not None and found.fingerprint == provenance.fingerprint:
        parts.remove()
        return found
    raise UsageError(
        f"{path} is there already, and was made otherwise",
        remedy="give another --name, or replace it with --force",
    )
