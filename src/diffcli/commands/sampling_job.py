"""Draw one archive: load its network, draw batch by batch in all processes, join them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch

from diffcli.commands.batch_loop import compute_missing
from diffcli.commands.conditions import SampleConditions
from diffcli.commands.given_noise import GivenNoise
from diffcli.commands.guide import Guide, load_guide
from diffcli.commands.known_images import KnownImages
from diffcli.commands.sample_archive import GRID, no_more_files, stands_already, write_directory
from diffcli.commands.sample_provenance import archive_name, provenance_of
from diffcli.commands.sampling_process import SamplingProcess
from diffcli.commands.sampling_request import SamplingOrder
from diffcli.commands.weights import LoadedNetwork, default_batch_size, load_network
from diffcli.diffusion.build import GaussianDiffusion, build_diffusion
from diffcli.diffusion.respacing import kept_timesteps
from diffcli.diffusion.reverse import Denoiser
from diffcli.images.conversion import to_uint8
from diffcli.models.conditioning import Conditioning
from diffcli.records.samples import SAMPLE_RECORD_FILE, SampleProvenance, SampleResult, StartFacts
from diffcli.registry.sample_records import images_key
from diffcli.sampling.archive import ArchiveParts, ArchivePlan, Images
from diffcli.sampling.noise import enlarging_seed, step_noise
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
    return prepared_job(order, conditions, process, start).run_to_the_end()


def prepared_job(
    order: SamplingOrder,
    conditions: SampleConditions,
    process: SamplingProcess,
    start: SampleStart | None = None,
) -> SamplingJob:
    """The job of an order, its networks loaded and nothing drawn; its provenance is known then."""
    for remark in conditions.remarks:
        process.tell(remark)
    return SamplingJob(
        order=order,
        conditions=conditions,
        loaded=load_ordered(order, process),
        guide=_load_guide(order, process),
        process=process,
        start=start,
    )


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


def _load_guide(order: SamplingOrder, process: SamplingProcess) -> Guide:
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
        provenance = self.provenance
        final = self._directory(provenance)
        workers = self.process.workers
        there = workers.first_decides(
            lambda: stands_already(final, provenance, force=self.order.request.force)
        )
        if there:
            return self._result(final, 0.0, already_there=True)
        parts = ArchiveParts(final.with_name(f".{final.name}.parts"), self.plan)
        taken = workers.first_decides(lambda: self._begin(parts, provenance))
        drawn = sum(len(self.plan.images(batch)) for batch in parts.missing())
        job = self if self.start is None else self._started(self.start, parts.directory / _SCRATCH)
        compute_missing(
            parts,
            steps=job.diffusion.steps,
            steps_of=job._solved,
            content=_images,
            process=self.process,
        )
        seconds = time.monotonic() - began
        finished = dataclasses.replace(provenance, seconds=round(seconds, 3), drawn=drawn)
        workers.first_decides(lambda: job._finish(final, parts, finished))
        return self._result(final, seconds, taken=taken)

    @cached_property
    def provenance(self) -> SampleProvenance:
        """Everything that decides the images, before the first of them is drawn."""
        return provenance_of(self)

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
            batch_size=request.batch_size or self._default_batch_size(),
        )

    def _default_batch_size(self) -> int:
        size = default_batch_size(self.order.config)
        if self.guide.doubles:
            size = max(1, size // 2)
        # not for samples of a seed, which are to be the same images whatever their number
        return size if self.start is None else min(size, self.conditions.count)

    def denoiser(self, batch: int) -> Denoiser:
        """The prediction for a batch, padding included, by a network told of each what it is to know."""
        return self.guide.denoiser(self.loaded, self._wanted(batch), self.plan.batch_size)

    def _wanted(self, batch: int) -> Conditioning:
        """What the samples of a batch are to show."""
        indices = self.plan.indices(batch)
        wanted = self.conditions.of(torch.arange(indices.start, indices.stop))
        return wanted.to(self.process.workers.device)

    @property
    def _noise_seed(self) -> int:
        low_resolution, seed = self.order.config.data.low_resolution, self.order.request.seed
        return enlarging_seed(seed, low_resolution) if low_resolution else seed

    def _started(self, start: SampleStart, scratch: Path) -> SamplingJob:
        """The job with the x_T that its start gives."""
        noise = start.noise(self, scratch)
        return dataclasses.replace(self, conditions=dataclasses.replace(self.conditions, noise=noise))

    def _solved(self, batch: int) -> Iterator[SolverStep]:
        """The steps of a whole batch, padding included."""
        seed, device, plan = self._noise_seed, self.process.workers.device, self.plan
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

    def _begin(self, parts: ArchiveParts, provenance: SampleProvenance) -> int:
        """Make the parts ready, with all images that are known already; how many came from elsewhere."""
        parts.begin(images_key(provenance))
        if self.order.request.force:
            return 0
        known = KnownImages(
            run=self.order.run.paths, provenance=provenance, conditions=self.conditions, process=self.process
        )
        return known.fill(parts)

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

    def _directory(self, provenance: SampleProvenance) -> Path:
        """Where the archive goes."""
        request = self.order.request
        if request.out is not None:
            return request.out.resolve()
        prefix = "" if self.start is None else self.start.prefix
        name = archive_name(provenance, prefix=prefix, guidance=self.guide.name_part)
        return self.order.run.paths.samples / (request.name or name)

    def _result(
        self, final: Path, seconds: float, *, taken: int = 0, already_there: bool = False
    ) -> SampleResult:
        plan = self.plan
        return SampleResult(
            run=self.order.run.id,
            directory=final,
            archive=final / plan.file_name,
            grid=final / GRID,
            record=final / SAMPLE_RECORD_FILE,
            count=plan.count,
            taken=taken,
            seconds=seconds,
            already_there=already_there,
            is_first=self.process.workers.is_first,
        )


def _images(solved: SolverStep) -> Images:
    """The images of a batch as an archive keeps them, uint8 [N, H, W, C]."""
    return to_uint8(solved.x).permute(0, 2, 3, 1).cpu().numpy()
