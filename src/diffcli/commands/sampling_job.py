"""Draw one archive: load its network, draw batch by batch in all processes, join them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch

from diffcli.commands.batch_loop import compute_missing
from diffcli.commands.conditions import SampleConditions
from diffcli.commands.given_noise import GivenNoise
from diffcli.commands.guide import Guide, load_guide
from diffcli.commands.sample_archive import (
    GRID,
    fingerprint,
    no_more_files,
    stands_already,
    write_directory,
)
from diffcli.commands.sampling_process import SamplingProcess
from diffcli.commands.sampling_request import SamplingOrder
from diffcli.commands.weights import LoadedNetwork, default_batch_size, load_network
from diffcli.diffusion.build import GaussianDiffusion, build_diffusion
from diffcli.diffusion.respacing import kept_timesteps
from diffcli.diffusion.reverse import Denoiser
from diffcli.images.conversion import to_uint8
from diffcli.models.conditioning import Conditioning
from diffcli.records.samples import SAMPLE_RECORD_FILE, SampleProvenance, SampleResult, StartFacts
from diffcli.registry.provenance import installed_versions, source_commit
from diffcli.sampling.archive import ArchiveParts, ArchivePlan, Images
from diffcli.sampling.noise import step_noise
from diffcli.sampling.solve import SolverSettings, SolverStep, solve

# beside the parts of an archive, and gone with them
_SCRATCH = "start"


class SampleStart(Protocol):
    """An origin of x_T other than the seed or a file, and what it adds to an archive.

    prefix: how the names of such archives begin; facts: what the archive's record says of it.
    """

    @property
    def prefix(self) -> str: ...

    @property
    def facts(self) -> StartFacts: ...

    def noise(self, job: SamplingJob, scratch: Path) -> GivenNoise:
        """x_T of all samples, in all processes at once; scratch: a place for parts until the archive stands.

        Raises InterruptedRunError after a clean stop.
        """

    def add_files(self, directory: Path, job: SamplingJob) -> None:
        """Write into the archive's directory, where the archive is already, what belongs to it besides."""


def draw_archive(
    order: SamplingOrder,
    conditions: SampleConditions,
    process: SamplingProcess,
    start: SampleStart | None = None,
) -> SampleResult:
    """Draw the images of an order, going on from what an interrupted call has left.

    Raises InterruptedRunError after a clean stop, and UsageError when another archive has the name.
    """
    for remark in conditions.remarks:
        process.tell(remark)
    return SamplingJob(
        order=order,
        conditions=conditions,
        loaded=load_ordered(order, process),
        guide=_loaded_guide(order, process),
        process=process,
        start=start,
    ).run_to_the_end()


def load_ordered(order: SamplingOrder, process: SamplingProcess) -> LoadedNetwork:
    """The network that an order asks for; what there is to say of its weights is told."""
    loaded = load_network(
        order.run,
        order.config,
        step=order.request.checkpoint,
        ema=order.config.sampling.ema,
        ema_std=order.request.ema_std,
        workers=process.workers,
    )
    for remark in loaded.remarks:
        process.tell(remark)
    return loaded


def _loaded_guide(order: SamplingOrder, process: SamplingProcess) -> Guide:
    guide = load_guide(order.guidance, order.config, order.request.precision, process.workers)
    for remark in guide.remarks:
        process.tell(remark)
    return guide


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplingJob:
    """One archive to draw, in one of its processes."""

    order: SamplingOrder
    conditions: SampleConditions
    loaded: LoadedNetwork
    guide: Guide
    process: SamplingProcess
    start: SampleStart | None = None

    def run_to_the_end(self) -> SampleResult:
        """Draw what is missing, then let the first process join it."""
        began = time.monotonic()
        plan = self.plan
        provenance = self._provenance(plan)
        final = self._directory(provenance)
        workers = self.process.workers
        there = workers.first_decides(
            lambda: stands_already(final, provenance, force=self.order.request.force)
        )
        if there:
            return self._result(final, plan, 0.0, already_there=True)
        parts = ArchiveParts(final.with_name(f".{final.name}.parts"), plan)
        workers.first_decides(lambda: parts.begin(fingerprint(provenance)))
        job = self if self.start is None else self._started(self.start, parts.directory / _SCRATCH)
        compute_missing(
            parts,
            steps=job.diffusion.steps,
            steps_of=job._solved,
            content=_images,
            process=self.process,
        )
        seconds = time.monotonic() - began
        finished = dataclasses.replace(provenance, seconds=round(seconds, 3))
        workers.first_decides(lambda: job._finish(final, parts, finished))
        return self._result(final, plan, seconds, already_there=False)

    @cached_property
    def diffusion(self) -> GaussianDiffusion:
        """The chain that the samples go down."""
        config = self.order.config
        return build_diffusion(config.diffusion, kept_timesteps(config.diffusion.steps, config.sampling))

    @property
    def plan(self) -> ArchivePlan:
        """The images to draw, and in which batches."""
        request, data = self.order.request, self.order.config.data
        return ArchivePlan(
            count=self.conditions.count,
            height=data.resolution,
            width=data.resolution,
            channels=data.channels,
            batch_size=request.batch_size or default_batch_size(self.order.config),
        )

    def denoiser(self, batch: int) -> Denoiser:
        """The network, told what it is to know of the samples of a batch, and guided if it is by itself."""
        return self.guide.denoiser(self.loaded, self._wanted(batch), self.plan.batch_size)

    def _wanted(self, batch: int) -> Conditioning:
        """What the samples of a batch are to show, padding included."""
        indices = self.plan.indices(batch)
        wanted = self.conditions.of(torch.arange(indices.start, indices.stop))
        return wanted.to(self.process.workers.device)

    def _started(self, start: SampleStart, scratch: Path) -> SamplingJob:
        """The job with the x_T that its start gives."""
        noise = start.noise(self, scratch)
        return dataclasses.replace(self, conditions=dataclasses.replace(self.conditions, noise=noise))

    def _solved(self, batch: int) -> Iterator[SolverStep]:
        """The steps of a whole batch, padding included."""
        seed, device, plan = self.order.request.seed, self.process.workers.device, self.plan
        samples = torch.arange(plan.indices(batch).start, plan.indices(batch).stop)
        on_device = samples.to(device)
        shape = (plan.channels, plan.height, plan.width)
        sampling = self.order.config.sampling
        return solve(
            self.denoiser(batch),
            self.diffusion,
            self.conditions.start(seed, samples, shape, device),
            lambda step: step_noise(seed, on_device, shape, step=step),
            SolverSettings(
                solver=sampling.solver,
                eta=sampling.eta,
                clip=sampling.clip,
                gradient_at=self.guide.gradient_at(self._wanted(batch)),
            ),
        )

    def _finish(self, final: Path, parts: ArchiveParts, provenance: SampleProvenance) -> None:
        start = self.start
        write_directory(
            final,
            parts,
            self.conditions,
            provenance,
            add_files=no_more_files if start is None else lambda making: start.add_files(making, self),
        )
        parts.remove()

    def _provenance(self, plan: ArchivePlan) -> SampleProvenance:
        request, run, config = self.order.request, self.order.run, self.order.config
        workers, sampling = self.process.workers, config.sampling
        kept = kept_timesteps(config.diffusion.steps, sampling)
        timesteps = kept or tuple(range(config.diffusion.steps))
        low_res, noise = self.conditions.low_res, self.conditions.noise
        versions = installed_versions()
        return SampleProvenance(
            run=run.id,
            dataset_hash=run.record.dataset.content_hash,
            checkpoint=self.loaded.step,
            checkpoint_manifest_sha256=self.loaded.manifest_sha256,
            weights=self.loaded.weights_name,
            average=self.loaded.average,
            classifier=self.guide.provenance,
            cfg=self.guide.cfg,
            solver=sampling.solver,
            steps=len(timesteps),
            timesteps=timesteps,
            eta=sampling.eta if sampling.solver == "ddim" else None,
            clip=sampling.clip,
            seed=request.seed,
            count=plan.count,
            batch_size=plan.batch_size,
            classes=request.classes,
            noise_sha256=None if noise is None else noise.sha256,
            start=None if self.start is None else self.start.facts,
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

    def _directory(self, provenance: SampleProvenance) -> Path:
        """Where the archive goes; its own name says what matters most, and ends in a digest of the rest."""
        request = self.order.request
        if request.out is not None:
            return request.out.resolve()
        if request.name is not None:
            return self.order.run.paths.samples / request.name
        name = (
            f"step-{provenance.checkpoint:06d}-{provenance.weights}-{provenance.solver}-{provenance.steps}"
            f"{self.guide.name_part}"
        )
        seed = f"-seed-{provenance.seed}" if self.start is None else ""
        prefix = "" if self.start is None else self.start.prefix
        digest = fingerprint(provenance)[:6]
        return self.order.run.paths.samples / f"{prefix}{name}{seed}-n-{provenance.count}-{digest}"

    def _result(self, final: Path, plan: ArchivePlan, seconds: float, *, already_there: bool) -> SampleResult:
        return SampleResult(
            run=self.order.run.id,
            directory=final,
            archive=final / plan.file_name,
            grid=final / GRID,
            record=final / SAMPLE_RECORD_FILE,
            count=plan.count,
            seconds=seconds,
            already_there=already_there,
            is_first=self.process.workers.is_first,
        )


def _images(solved: SolverStep) -> Images:
    """The images of a batch as an archive keeps them, uint8 [N, H, W, C]."""
    return to_uint8(solved.x).permute(0, 2, 3, 1).cpu().numpy()
