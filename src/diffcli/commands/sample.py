"""Draw images from a run into an archive."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from diffcli import __version__, durable
from diffcli.commands.conditions import ConditionsRequest, SampleConditions, find_conditions
from diffcli.commands.interruption import StopRequests
from diffcli.commands.sampling_request import SampleRequest, sampling_config
from diffcli.commands.weights import LoadedNetwork, default_batch_size, load_network
from diffcli.config.sections import RunConfig
from diffcli.diffusion.build import GaussianDiffusion, build_diffusion
from diffcli.diffusion.respacing import kept_timesteps
from diffcli.errors import InterruptedRunError, UsageError
from diffcli.images.conversion import to_uint8
from diffcli.images.grid import grid, write_png
from diffcli.records.samples import SampleProvenance, SampleResult
from diffcli.registry.create import Run, open_run
from diffcli.sampling.archive import ArchiveParts, ArchivePlan, Images, write_archive
from diffcli.sampling.noise import step_noise
from diffcli.sampling.solve import SolverSettings, solve
from diffcli.workers import Workers, WorkersSettings

_SCHEMA = 1
_RECORD = "sample.json"
_GRID = "grid.png"
_GRID_IMAGES = 100
_GRID_COLUMNS = 10
_GRID_LEAST_PIXELS = 32


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
    conditions = find_conditions(
        ConditionsRequest(
            count=request.count,
            seed=request.seed,
            classes=request.classes,
            noise=request.noise,
            low_res=request.low_res,
        ),
        config,
        run.record.dataset.class_names,
    )
    with StopRequests() as stop:
        workers = Workers(
            WorkersSettings(
                device=request.device, precision="fp32", threads=request.threads, deterministic=False
            )
        )
        loaded = load_network(
            run, config, step=request.checkpoint, ema=config.sampling.ema, device=workers.device
        )
        job = _SamplingJob(
            request=request, run=run, config=config, conditions=conditions, loaded=loaded, workers=workers
        )
        if workers.is_first:
            for rejected in loaded.rejected:
                progress.notice(f"warning: a newer checkpoint is damaged and not used: {rejected.what}")
            stop.on_request = lambda _number: progress.notice("stopping after this batch")
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
    workers: Workers

    def run_to_the_end(self, stop: StopRequests, progress: SampleProgress) -> SampleResult:
        """Draw what is missing, then let the first process join it."""
        started = time.monotonic()
        final = self._directory()
        if self.workers.first_decides(lambda: self._is_there(final)):
            return self._result(final, 0.0, already_there=True)
        plan = self._plan()
        parts = ArchiveParts(final.with_name(f".{final.name}.parts"), plan)
        self.workers.first_decides(lambda: parts.begin(self._fingerprint()))
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
        self.workers.first_decides(lambda: self._finish(final, plan, parts, seconds))
        return self._result(final, seconds, already_there=False)

    def _draw(
        self, plan: ArchivePlan, parts: ArchiveParts, stop: StopRequests, progress: SampleProgress
    ) -> None:
        missing = parts.missing()
        own = [batch for batch in missing if batch % self.workers.world_size == self.workers.rank]
        diffusion = build_diffusion(
            self.config.diffusion, kept_timesteps(self.config.diffusion.steps, self.config.sampling)
        )
        done = plan.batches - len(missing)
        for drawn, batch in enumerate(own):
            self._tell(progress, plan, done + drawn * self.workers.world_size)
            images = self._draw_batch(diffusion, plan, batch, stop)
            if images is None:
                return
            parts.write(batch, images)
        self._tell(progress, plan, plan.batches)

    def _tell(self, progress: SampleProgress, plan: ArchivePlan, batches: int) -> None:
        if self.workers.is_first:
            progress(min(batches * plan.batch_size, plan.count), plan.count)

    def _draw_batch(
        self, diffusion: GaussianDiffusion, plan: ArchivePlan, batch: int, stop: StopRequests
    ) -> Images | None:
        """The images of a batch, padding included; None when a stop was asked for before they were done."""
        seed, device = self.request.seed, self.workers.device
        samples = torch.arange(plan.indices(batch).start, plan.indices(batch).stop)
        on_device = samples.to(device)
        shape = (plan.channels, plan.height, plan.width)
        sampling = self.config.sampling
        x = self.conditions.start(seed, samples, shape, device)
        steps = solve(
            self.loaded.denoiser(self.conditions.of(samples).to(device), self.request.precision),
            diffusion,
            x,
            lambda step: step_noise(seed, on_device, shape, step=step),
            SolverSettings(solver=sampling.solver, eta=sampling.eta, clip=sampling.clip),
        )
        for step in steps:
            if stop.signal_number:
                return None
            x = step.x
        images: Images = to_uint8(x).permute(0, 2, 3, 1).cpu().numpy()
        return images

    def _finish(self, final: Path, plan: ArchivePlan, parts: ArchiveParts, seconds: float) -> None:
        """Write archive, grid and record beside their place, then give them their name."""
        making = final.with_name(f".{final.name}.making")
        durable.remove_tree(making)
        with durable.storage_errors(final):
            making.mkdir(parents=True)
        shown: list[Images] = []
        labels = self.conditions.classes
        write_archive(
            making / plan.file_name,
            plan,
            _keeping_first(parts.read(), shown, self._grid_count(plan)),
            None if labels is None else labels[: plan.count].numpy(),
        )
        write_png(making / _GRID, self._grid(np.concatenate(shown), plan))
        record = {"schema": _SCHEMA, "fingerprint": self._fingerprint()}
        durable.write_json(making / _RECORD, record | dataclasses.asdict(self._provenance(plan, seconds)))
        if self.request.force:
            durable.remove_tree(final)
        durable.commit_directory(making, final)
        parts.remove()

    def _grid_count(self, plan: ArchivePlan) -> int:
        listed = self.conditions.classes_per_round
        most = listed * _GRID_COLUMNS if listed else _GRID_IMAGES
        return min(plan.count, most)

    def _grid(self, images: Images, plan: ArchivePlan) -> Images:
        """One row for each listed class, in the order of the list; without a list, ten columns."""
        magnify = max(1, _GRID_LEAST_PIXELS // plan.height)
        listed = self.conditions.classes_per_round
        if not listed or len(images) < listed:
            return grid(images, columns=_GRID_COLUMNS, magnify=magnify)
        columns = len(images) // listed
        by_class = images[: columns * listed].reshape(columns, listed, *images.shape[1:])
        rows = by_class.swapaxes(0, 1).reshape(-1, *images.shape[1:])
        return grid(rows, columns=columns, magnify=magnify)

    def _plan(self) -> ArchivePlan:
        data = self.config.data
        return ArchivePlan(
            count=self.request.count,
            height=data.resolution,
            width=data.resolution,
            channels=data.channels,
            batch_size=self.request.batch_size or default_batch_size(self.config),
        )

    def _provenance(self, plan: ArchivePlan, seconds: float) -> SampleProvenance:
        sampling = self.config.sampling
        kept = kept_timesteps(self.config.diffusion.steps, sampling)
        timesteps = kept or tuple(range(self.config.diffusion.steps))
        labels = self.conditions.classes
        return SampleProvenance(
            run=self.run.id,
            checkpoint=self.loaded.step,
            weights=self.loaded.weights_name,
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
            device=str(self.workers.device),
            threads=self.workers.threads,
            precision=self.request.precision,
            world_size=self.workers.world_size,
            diffcli=__version__,
            torch=torch.__version__,
            command_line=self.request.command_line,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 3),
        )

    def _fingerprint(self) -> str:
        """A digest of everything that decides the images, so that requests are not mixed up."""
        record = dataclasses.asdict(self._provenance(self._plan(), 0.0))
        # these change no image by more than rounding, or not at all
        for field in ("command_line", "created_at", "seconds", "world_size", "threads", "device", "torch"):
            del record[field]
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def _directory(self) -> Path:
        if self.request.out is not None:
            return self.request.out
        return self.run.paths.samples / (self.request.name or self._default_name())

    def _default_name(self) -> str:
        """What matters most, and a digest of the rest, so that another request gets another name."""
        steps = len(self._provenance(self._plan(), 0.0).timesteps)
        solver = self.config.sampling.solver
        return (
            f"step-{self.loaded.step:06d}-{self.loaded.weights_name}-{solver}-{steps}"
            f"-seed-{self.request.seed}-n-{self.request.count}-{self._fingerprint()[:6]}"
        )

    def _is_there(self, final: Path) -> bool:
        """Whether exactly this archive stands already; UsageError when another one has its place."""
        if self.request.force or not final.exists():
            return False
        try:
            found = json.loads((final / _RECORD).read_text())
        except (OSError, ValueError):
            found = {}
        if found.get("fingerprint") == self._fingerprint():
            return True
        raise UsageError(
            f"{final} is there already, and was made otherwise",
            remedy="give another --name or --out, or replace it with --force",
        )

    def _result(self, final: Path, seconds: float, *, already_there: bool) -> SampleResult:
        return SampleResult(
            run=self.run.id,
            directory=final,
            archive=final / self._plan().file_name,
            grid=final / _GRID,
            record=final / _RECORD,
            count=self.request.count,
            seconds=seconds,
            already_there=already_there,
            is_first=self.workers.is_first,
        )


def _keeping_first(batches: Iterator[Images], kept: list[Images], count: int) -> Iterator[Images]:
    """Pass batches on, and keep the first `count` images."""
    missing = count
    for images in batches:
        if missing > 0:
            kept.append(images[:missing])
            missing -= len(kept[-1])
        yield images
