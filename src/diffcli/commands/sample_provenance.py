"""What an archive's record says of how its images are made, and the name that this gives it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from diffcli.diffusion.respacing import kept_timesteps
from diffcli.records.samples import SampleProvenance
from diffcli.registry.provenance import installed_versions, source_commit
from diffcli.registry.run_record import known_dataset
from diffcli.registry.sample_records import fingerprint

if TYPE_CHECKING:
    from diffcli.commands.sampling_job import SamplingJob


def provenance_of(job: SamplingJob) -> SampleProvenance:
    """Everything that decides the images of a job, before the first of them is drawn."""
    request, run, config = job.order.request, job.order.run, job.order.config
    workers, sampling = job.process.workers, config.sampling
    kept = kept_timesteps(config.diffusion.steps, sampling)
    timesteps = kept or tuple(range(config.diffusion.steps))
    low_res, noise = job.conditions.low_res, job.conditions.noise
    versions = installed_versions()
    return SampleProvenance(
        run=run.id,
        dataset_hash=known_dataset(run.paths, run.record).content_hash,
        checkpoint=job.loaded.step,
        checkpoint_manifest_sha256=job.loaded.manifest_sha256,
        weights=job.loaded.weights_name,
        average=job.loaded.average,
        classifier=job.guide.provenance,
        cfg=job.guide.cfg,
        solver=sampling.solver,
        steps=len(timesteps),
        timesteps=timesteps,
        eta=sampling.eta if sampling.solver == "ddim" else None,
        clip=sampling.clip,
        seed=request.seed,
        count=job.plan.count,
        batch_size=job.plan.batch_size,
        classes=request.classes,
        classes_sha256=job.conditions.classes_sha256,
        noise_sha256=None if noise is None else noise.sha256,
        start=None if job.start is None else job.start.facts,
        low_res_sha256=None if low_res is None else low_res.sha256,
        low_res_origin=None if low_res is None else low_res.origin,
        # without its number, which differs between processes
        device=workers.device.type,
        threads=workers.threads,
        precision=request.precision,
        world_size=workers.world_size,
        diffcli=versions.diffcli,
        git_commit=source_commit(),
        python=versions.python,
        torch=versions.torch,
        numpy=versions.numpy,
        platform=versions.platform,
        command_line=request.command_line,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
    )


def archive_name(provenance: SampleProvenance, *, prefix: str, guidance: str) -> str:
    """What matters most of it, and at the end a digest of the rest."""
    seed = f"-seed-{provenance.seed}" if provenance.start is None else ""
    return (
        f"{prefix}step-{provenance.checkpoint:06d}-{provenance.weights}"
        f"-{provenance.solver}-{provenance.steps}{guidance}{seed}"
        f"-n-{provenance.count}-{fingerprint(provenance)[:6]}"
    )
