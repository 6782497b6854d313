"""Draw one archive: load its network, draw batch by batch in all processes, join them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from diffcli.commands.batch_loop import compute_missing
from diffcli.commands.conditions import SampleConditions
from diffcli.commands.sample_archive import GRID, RECORD, fingerprint, stands_already, write_directory
from diffcli.commands.sampling_process import SamplingProcess
from diffcli.commands.sampling_request import SamplingOrder
from diffcli.commands.weights import LoadedNetwork, default_batch_size, load_network
from diffcli.diffusion.build import GaussianDiffusion, build_diffusion
from diffcli.diffusion.respacing import kept_timesteps
from diffcli.images.conversion import to_uint8
from diffcli.records.samples import SampleProvenance, SampleResult
from diffcli.registry.provenance import installed_versions, source_commit
from diffcli.sampling.archive import ArchiveParts, ArchivePlan, Images
from diffcli.sampling.noise import step_noise
from diffcli.sampling.solve import SolverSettings, SolverStep, solve


def draw_archive(
    order: SamplingOrder, conditions: SampleConditions, process: SamplingProcess
) -> SampleResult:
    """Draw the images of an order, going on from what an interrupted call has left.

    Raises InterruptedRunError after a clean stop, and UsageError when another archive has the name.
    """
    return SamplingJob(
        order=order, conditions=conditions, loaded=load_ordered(order, process), process=process
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


@dataclass(frozen=True, kw_only=True)
class SamplingJob:
    """One archive to draw, in one of its processes."""

    order: SamplingOrder
    conditions: SampleConditions
    loaded: LoadedNetwork
    process: SamplingProcess

    def run_to_the_end(self) -> SampleResult:
        """Draw what is missing, then let the first process join it."""
        started = time.monotonic()
        plan = self._plan()
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
        diffusion = self._diffusion()
        compute_missing(
            parts,
            steps=diffusion.steps,
            steps_of=lambda batch: self._solved(diffusion, plan, batch),
            content=_images,
            process=self.process,
        )
        seconds = time.monotonic() - started
        finished = dataclasses.replace(provenance, seconds=round(seconds, 3))
        workers.first_decides(lambda: self._finish(final, plan, parts, finished))
        return self._result(final, plan, seconds, already_there=False)

    def _diffusion(self) -> GaussianDiffusion:
        config = self.order.config
        return build_diffusion(config.diffusion, kept_timesteps(config.diffusion.steps, config.sampling))

    def _solved(self, diffusion: GaussianDiffusion, plan: ArchivePlan, batch: int) -> Iterator[SolverStep]:
        """The steps of a whole batch, padding included."""
        seed, device = self.order.request.seed, self.process.workers.device
        samples = torch.arange(plan.indices(batch).start, plan.indices(batch).stop)
        on_device = samples.to(device)
        shape = (plan.channels, plan.height, plan.width)
        sampling = self.order.config.sampling
        return solve(
            self.loaded.denoiser(self.conditions.of(samples).to(device), self.order.request.precision),
            diffusion,
            self.conditions.start(seed, samples, shape, device),
            lambda step: step_noise(seed, on_device, shape, step=step),
            SolverSettings(solver=sampling.solver, eta=sampling.eta, clip=sampling.clip),
        )

    def _finish(
        self, final: Path, plan: ArchivePlan, parts: ArchiveParts, provenance: SampleProvenance
    ) -> None:
        write_directory(final, plan, parts.read(), self.conditions, provenance)
        parts.remove()

    def _plan(self) -> ArchivePlan:
        request, data = self.order.request, self.order.config.data
        return ArchivePlan(
            count=request.count,
            height=data.resolution,
            width=data.resolution,
            channels=data.channels,
            batch_size=request.batch_size or default_batch_size(self.order.config),
        )

    def _provenance(self, plan: ArchivePlan) -> SampleProvenance:
        request, run, config = self.order.request, self.order.run, self.order.config
        workers, sampling = self.process.workers, config.sampling
        kept = kept_timesteps(config.diffusion.steps, sampling)
        timesteps = kept or tuple(range(config.diffusion.steps))
        labels = self.conditions.classes
        versions = installed_versions()
        return SampleProvenance(
            run=run.id,
            dataset_hash=run.record.dataset.content_hash,
            checkpoint=self.loaded.step,
            checkpoint_manifest_sha256=self.loaded.manifest_sha256,
            weights=self.loaded.weights_name,
            average=self.loaded.average,
            solver=sampling.solver,
            steps=len(timesteps),
            timesteps=timesteps,
            eta=sampling.eta if sampling.solver == "ddim" else None,
            clip=sampling.clip,
            seed=request.seed,
            count=plan.count,
            batch_size=plan.batch_size,
            classes=request.classes if labels is not None else None,
            noise_sha256=self.conditions.noise_sha256,
            low_res_sha256=self.conditions.low_res_sha256,
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
        name = (
            f"step-{provenance.checkpoint:06d}-{provenance.weights}-{provenance.solver}-{provenance.steps}"
            f"-seed-{provenance.seed}-n-{provenance.count}-{fingerprint(provenance)[:6]}"
        )
        return self.order.run.paths.samples / (request.name or name)

    def _result(self, final: Path, plan: ArchivePlan, seconds: float, *, already_there: bool) -> SampleResult:
        return SampleResult(
            run=self.order.run.id,
            directory=final,
            archive=final / plan.file_name,
            grid=final / GRID,
            record=final / RECORD,
            count=plan.count,
            seconds=seconds,
            already_there=already_there,
            is_first=self.process.workers.is_first,
        )


def _images(solved: SolverStep) -> Images:
    """The images of a batch as an archive keeps them, uint8 [N, H, W, C]."""
    return to_uint8(solved.x).permute(0, 2, 3, 1).cpu().numpy()
