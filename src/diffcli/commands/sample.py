"""Draw images from a run into an archive."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import torch

from diffcli.commands.conditions import ConditionsRequest, SampleConditions, find_conditions
from diffcli.commands.guidance import check_classes_asked, find_guidance
from diffcli.commands.guide import Guide, load_guide
from diffcli.commands.interruption import StopRequests
from diffcli.commands.sample_archive import GRID, RECORD, fingerprint, stands_already, write_directory
from diffcli.commands.sampling_request import SampleRequest, sampling_config
from diffcli.commands.weights import LoadedNetwork, default_batch_size, load_network
from diffcli.config.sections import RunConfig
from diffcli.diffusion.build import GaussianDiffusion, build_diffusion
from diffcli.diffusion.respacing import kept_timesteps
from diffcli.errors import InterruptedRunError
from diffcli.images.conversion import to_uint8
from diffcli.records.samples import SampleProvenance, SampleResult
from diffcli.registry.create import Run, open_run
from diffcli.registry.provenance import installed_versions, source_commit
from diffcli.sampling.archive import ArchiveParts, ArchivePlan
from diffcli.sampling.noise import step_noise
from diffcli.sampling.solve import SolverSettings, SolverStep, solve
from diffcli.workers import Workers, WorkersSettings


class SampleProgress(Protocol):
    """Draws the progress of sampling; only the first process calls it."""

    def __call__(self, done: int, total: int) -> None:
        """So many of all images are drawn."""

    def notice(self, text: str) -> None:
        """A remark; may come from another thread."""


def sample(request: SampleRequest, progress: SampleProgress) -> SampleResult:
    """Draw the images, going on from what an interrupted call has left.

    Raises InterruptedRunError after a clean stop, and UsageError when another archive has the name.
    """
    run = open_run(request.runs_home, request.run)
    config = sampling_config(request, run)
    guidance = find_guidance(request.guidance, run, config, request.runs_home)
    check_classes_asked(guidance, request.classes)
    conditions = find_conditions(
        ConditionsRequest(
            count=request.count,
            seed=request.seed,
            classes=request.classes,
            noise=request.noise,
            low_res=request.low_res,
        ),
        guidance.config_of_classes(config),
        guidance.class_names(run, config),
    )
    with StopRequests() as stop:
        workers = Workers(
            WorkersSettings(
                device=request.device, precision="fp32", threads=request.threads, deterministic=False
            )
        )
        with workers.peer_failures():
            loaded = load_network(
                run,
                config,
                step=request.checkpoint,
                ema=config.sampling.ema,
                ema_std=request.ema_std,
                workers=workers,
            )
            guide = load_guide(guidance, config, request.precision, workers)
            if workers.is_first:
                for remark in (*loaded.remarks, *guide.remarks):
                    progress.notice(remark)
                stop.on_request = lambda _number: progress.notice("stopping after this step")
            job = _SamplingJob(
                request=request,
                run=run,
                config=config,
                conditions=conditions,
                loaded=loaded,
                guide=guide,
                workers=workers,
            )
            result = job.run_to_the_end(stop, progress)
        workers.close()
    return result


@dataclass(frozen=True, kw_only=True)
class _SamplingJob:
    """One archive to draw, in one of its processes."""

    request: SampleRequest
    run: Run
    config: RunConfig
    conditions: SampleConditions
    loaded: LoadedNetwork
    guide: Guide
    workers: Workers

    def run_to_the_end(self, stop: StopRequests, progress: SampleProgress) -> SampleResult:
        """Draw what is missing, then let the first process join it."""
        started = time.monotonic()
        plan = self._plan()
        provenance = self._provenance(plan)
        final = self._directory(provenance)
        there = self.workers.first_decides(
            lambda: stands_already(final, provenance, force=self.request.force)
        )
        if there:
            return self._result(final, plan, 0.0, already_there=True)
        parts = ArchiveParts(final.with_name(f".{final.name}.parts"), plan)
        self.workers.first_decides(lambda: parts.begin(fingerprint(provenance)))
        self._draw(plan, parts, stop, progress)
        # every process has come to its end or its stop: one signal stops them all
        signal_number = self.workers.largest(stop.signal_number)
        if signal_number:
            raise InterruptedRunError(
                f"stopped with {plan.batches - len(parts.missing())} of {plan.batches} batches drawn",
                signal_number=signal_number,
                remedy="the same command goes on from there",
            )
        seconds = time.monotonic() - started
        finished = dataclasses.replace(provenance, seconds=round(seconds, 3))
        self.workers.first_decides(lambda: self._finish(final, plan, parts, finished))
        return self._result(final, plan, seconds, already_there=False)

    def _draw(
        self, plan: ArchivePlan, parts: ArchiveParts, stop: StopRequests, progress: SampleProgress
    ) -> None:
        missing = parts.missing()
        own = [batch for batch in missing if batch % self.workers.world_size == self.workers.rank]
        diffusion = build_diffusion(
            self.config.diffusion, kept_timesteps(self.config.diffusion.steps, self.config.sampling)
        )
        done = plan.batches - len(missing)
        self._tell(progress, plan, done)
        for drawn, batch in enumerate(own):
            for solved in self._solved(diffusion, plan, batch):
                if stop.signal_number:
                    return
                share = 1 - solved.step / diffusion.steps
                self._tell(progress, plan, done + (drawn + share) * self.workers.world_size)
            parts.write(batch, to_uint8(solved.x).permute(0, 2, 3, 1).cpu().numpy())
        self._tell(progress, plan, plan.batches)

    def _tell(self, progress: SampleProgress, plan: ArchivePlan, batches: float) -> None:
        if self.workers.is_first:
            progress(min(int(batches * plan.batch_size), plan.count), plan.count)

    def _solved(self, diffusion: GaussianDiffusion, plan: ArchivePlan, batch: int) -> Iterator[SolverStep]:
        """The steps of a whole batch, padding included."""
        seed, device = self.request.seed, self.workers.device
        samples = torch.arange(plan.indices(batch).start, plan.indices(batch).stop)
        on_device = samples.to(device)
        shape = (plan.channels, plan.height, plan.width)
        sampling = self.config.sampling
        wanted = self.conditions.of(samples).to(device)
        return solve(
            self.guide.denoiser(self.loaded, wanted, len(samples)),
            diffusion,
            self.conditions.start(seed, samples, shape, device),
            lambda step: step_noise(seed, on_device, shape, step=step),
            SolverSettings(
                solver=sampling.solver,
                eta=sampling.eta,
                clip=sampling.clip,
                gradient_at=self.guide.gradient_at(wanted),
            ),
        )

    def _finish(
        self, final: Path, plan: ArchivePlan, parts: ArchiveParts, provenance: SampleProvenance
    ) -> None:
        write_directory(final, plan, parts.read(), self.conditions, provenance)
        parts.remove()

    def _plan(self) -> ArchivePlan:
        data = self.config.data
        return ArchivePlan(
            count=self.request.count,
            height=data.resolution,
            width=data.resolution,
            channels=data.channels,
            batch_size=self.request.batch_size or default_batch_size(self.config),
        )

    def _provenance(self, plan: ArchivePlan) -> SampleProvenance:
        sampling = self.config.sampling
        kept = kept_timesteps(self.config.diffusion.steps, sampling)
        timesteps = kept or tuple(range(self.config.diffusion.steps))
        labels = self.conditions.classes
        versions = installed_versions()
        return SampleProvenance(
            run=self.run.id,
            dataset_hash=self.run.record.dataset.content_hash,
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
            seed=self.request.seed,
            count=plan.count,
            batch_size=plan.batch_size,
            classes=self.request.classes if labels is not None else None,
            noise_sha256=self.conditions.noise_sha256,
            low_res_sha256=self.conditions.low_res_sha256,
            # without its number, which differs between processes
            device=self.workers.device.type,
            threads=self.workers.threads,
            precision=self.request.precision,
            world_size=self.workers.world_size,
            diffcli=versions.diffcli,
            git_commit=source_commit(),
            python=versions.python,
            torch=versions.torch,
            numpy=versions.numpy,
            platform=versions.platform,
            command_line=self.request.command_line,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=0.0,
        )

    def _directory(self, provenance: SampleProvenance) -> Path:
        """Where the archive goes; its own name says what matters most, and ends in a digest of the rest."""
        if self.request.out is not None:
            return self.request.out.resolve()
        name = (
            f"step-{provenance.checkpoint:06d}-{provenance.weights}-{provenance.solver}-{provenance.steps}"
            f"{self.guide.name_part}-seed-{provenance.seed}-n-{provenance.count}"
            f"-{fingerprint(provenance)[:6]}"
        )
        return self.run.paths.samples / (self.request.name or name)

    def _result(self, final: Path, plan: ArchivePlan, seconds: float, *, already_there: bool) -> SampleResult:
        return SampleResult(
            run=self.run.id,
            directory=final,
            archive=final / plan.file_name,
            grid=final / GRID,
            record=final / RECORD,
            count=self.request.count,
            seconds=seconds,
            already_there=already_there,
            is_first=self.workers.is_first,
        )
