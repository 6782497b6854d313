"""Evaluate a run: the likelihood of images under its network."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from diffcli import durable
from diffcli.commands.evaluation_images import EvaluationImages, ImageChoice, choose_images
from diffcli.commands.interruption import StopRequests
from diffcli.commands.run_config import current_config, require_diffusion_model
from diffcli.commands.sampling_request import check_ema_std, ema_choice
from diffcli.commands.weights import LoadedNetwork, default_batch_size, load_network
from diffcli.config.resolve import FlagSetting, revise
from diffcli.config.sections import Precision, RunConfig
from diffcli.diffusion.build import GaussianDiffusion, build_diffusion
from diffcli.diffusion.likelihood import BitsPerDim, LikelihoodStep, likelihood_steps
from diffcli.diffusion.respacing import section_timesteps
from diffcli.errors import InterruptedRunError, UsageError
from diffcli.evaluation.likelihood import exact_bits_per_dim, likelihood_noise, mean_likelihood
from diffcli.records.evaluations import (
    EVALUATION_SCHEMA,
    EvaluatedModel,
    EvaluationConditions,
    EvaluationResult,
    Likelihood,
    LikelihoodEvaluation,
    LikelihoodSettings,
)
from diffcli.registry.create import Run, open_run
from diffcli.registry.json_records import write_record
from diffcli.registry.provenance import installed_versions, source_commit
from diffcli.workers import DeviceChoice, Workers, WorkersSettings

_FULL_CHAIN = "full"
# the settings of sampling that the bound depends on
_CHANGEABLE = ("sampling.clip", "sampling.ema")


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """What `diffcli eval RUN --nll` was asked for; timesteps: a number, or full."""

    run: str
    images: ImageChoice
    timesteps: str
    seed: int
    batch_size: int | None
    overrides: tuple[str, ...]
    ema: str | None
    ema_std: float | None = None
    checkpoint: int | None
    name: str | None
    device: DeviceChoice
    precision: Precision
    threads: int | None
    force: bool
    runs_home: Path
    command_line: tuple[str, ...]


class EvaluationProgress(Protocol):
    """Draws the progress of an evaluation."""

    def __call__(self, done: int, total: int) -> None:
        """So many images went through so many timesteps, the product counted."""

    def notice(self, text: str) -> None:
        """A remark; may come from another thread."""


def evaluate(request: EvaluateRequest, progress: EvaluationProgress) -> EvaluationResult:
    """Bound the likelihood of the images and record it in the run's evals/.

    Raises MissingError, UsageError and CorruptError for what is not there, does not fit or is damaged, and
    InterruptedRunError after a clean stop, which leaves no record. Main thread only.
    """
    run = open_run(request.runs_home, request.run)
    config = _evaluated_config(request, run)
    diffusion = _chain(request, config)
    images = choose_images(request.images, run, config)
    with StopRequests(on_request=lambda _number: progress.notice("stopping; nothing is written")) as stop:
        workers = _workers(request)
        loaded = load_network(
            run,
            config,
            step=request.checkpoint,
            ema=config.sampling.ema,
            ema_std=request.ema_std,
            workers=workers,
        )
        evaluation = _Evaluation(
            request=request,
            run=run,
            config=config,
            diffusion=diffusion,
            images=images,
            loaded=loaded,
            workers=workers,
        )
        path = evaluation.claimed_path()
        evaluation.tell_caveats(progress)
        record = evaluation.measure(stop, progress)
    write_record(path, record, schema=EVALUATION_SCHEMA)
    return EvaluationResult(name=path.stem, path=path, evaluation=record)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Evaluation:
    """One evaluation, with everything found and loaded."""

    request: EvaluateRequest
    run: Run
    config: RunConfig
    diffusion: GaussianDiffusion
    images: EvaluationImages
    loaded: LoadedNetwork
    workers: Workers

    def claimed_path(self) -> Path:
        """Where the record will stand; UsageError or StorageError now rather than after hours of work."""
        directory = self.run.paths.evaluations
        path = directory / f"{_checked(self.request.name) or self._default_name()}.json"
        if path.exists() and not self.request.force:
            raise UsageError(
                f"{path} is there already", remedy="give another --name, or replace it with --force"
            )
        with durable.storage_errors(directory):
            directory.mkdir(exist_ok=True)
            tempfile.TemporaryFile(dir=directory).close()
        return path

    def tell_caveats(self, progress: EvaluationProgress) -> None:
        """Say what a reader of the numbers should know beforehand."""
        for remark in self.loaded.remarks:
            progress.notice(remark)
        if self.images.described(self.run).trained_on:
            progress.notice(f"warning: {self.run.id} was trained on these very images")

    def measure(self, stop: StopRequests, progress: EvaluationProgress) -> LikelihoodEvaluation:
        """Run every image through every timestep; InterruptedRunError once a signal asks to stop."""
        started_at, began = datetime.now(UTC), time.monotonic()
        likelihood = mean_likelihood(self.diffusion, self._bounds(stop, progress))
        return self._record(likelihood, started_at, time.monotonic() - began)

    def _bounds(self, stop: StopRequests, progress: EvaluationProgress) -> Iterator[BitsPerDim]:
        """The bound on each batch of images, in the order of the dataset."""
        count, size = self.images.count, self._batch_size
        for first in range(0, count, size):
            batch = self.images.batch(range(first, min(first + size, count)), self.workers.device)
            steps = likelihood_steps(
                self.loaded.denoiser(batch.conditioning, self.request.precision),
                self.diffusion,
                batch.x_start,
                likelihood_noise(self.diffusion, self.request.seed, batch.indices, batch.x_start.shape[1:]),
                clip=self.config.sampling.clip,
            )
            yield exact_bits_per_dim(
                self.diffusion, batch.x_start, self._watched(steps, first, len(batch.indices), stop, progress)
            )

    def _watched(
        self,
        steps: Iterable[LikelihoodStep],
        images_before: int,
        images: int,
        stop: StopRequests,
        progress: EvaluationProgress,
    ) -> Iterator[LikelihoodStep]:
        """The steps of a batch, each told as progress and followed by a look at the signals."""
        chain = self.diffusion.steps
        progress(images_before * chain, self.images.count * chain)
        for taken, step in enumerate(steps, start=1):
            yield step
            progress(images_before * chain + images * taken, self.images.count * chain)
            if stop.signal_number:
                raise InterruptedRunError(
                    f"stopped after {images_before} of {self.images.count} images; nothing was written",
                    signal_number=stop.signal_number,
                    remedy="the same command starts again from the first image",
                )

    @property
    def _batch_size(self) -> int:
        return self.request.batch_size or default_batch_size(self.config)

    @property
    def _full_chain(self) -> bool:
        return self.diffusion.steps == self.diffusion.original_steps

    def _default_name(self) -> str:
        """What matters most of it; a second one that is alike needs a name from its user."""
        images = self.images.described(self.run)
        parts = [
            f"nll-{images.split or 'images'}-{images.count}",
            f"step-{self.loaded.step:06d}-{self.loaded.weights_name}",
        ]
        if not self._full_chain:
            parts.append(f"{self.diffusion.steps}-timesteps")
        if not self.config.sampling.clip:
            parts.append("no-clip")
        return "-".join([*parts, f"seed-{self.request.seed}"])

    def _record(self, likelihood: Likelihood, started_at: datetime, seconds: float) -> LikelihoodEvaluation:
        versions = installed_versions()
        return LikelihoodEvaluation(
            model=EvaluatedModel(
                run=self.run.id,
                checkpoint=self.loaded.step,
                weights=self.loaded.weights_name,
                average=self.loaded.average,
            ),
            images=self.images.described(self.run),
            settings=LikelihoodSettings(
                seed=self.request.seed,
                clip=self.config.sampling.clip,
                timesteps=self.diffusion.steps,
                chain_timesteps=self.diffusion.original_steps,
                full_chain=self._full_chain,
            ),
            conditions=EvaluationConditions(
                batch_size=self._batch_size,
                device=str(self.workers.device),
                threads=self.workers.threads,
                precision=self.request.precision,
                diffcli=versions.diffcli,
                git_commit=source_commit(),
                python=versions.python,
                torch=versions.torch,
                numpy=versions.numpy,
                platform=versions.platform,
                command_line=self.request.command_line,
                started_at=started_at,
                seconds=round(seconds, 3),
            ),
            likelihood=likelihood,
        )


def _evaluated_config(request: EvaluateRequest, run: Run) -> RunConfig:
    """The run's configuration with what the request asks of its sampling section."""
    require_diffusion_model(run)
    check_ema_std(request.ema_std, ema=request.ema, overrides=request.overrides)
    flags = []
    if request.ema is not None:
        flags.append(FlagSetting(flag="--ema", path="sampling.ema", value=ema_choice(request.ema)))
    return revise(
        current_config(run), run=run.id, changeable=_CHANGEABLE, overrides=request.overrides, flags=flags
    ).config


def _chain(request: EvaluateRequest, config: RunConfig) -> GaussianDiffusion:
    """The full chain of training, or a respaced one; UsageError for a length it cannot have."""
    chain = config.diffusion.steps
    if request.timesteps == _FULL_CHAIN:
        return build_diffusion(config.diffusion)
    if not request.timesteps.isdecimal() or not 1 <= int(request.timesteps) <= chain:
        raise UsageError(
            f"a chain of {request.timesteps!r} timesteps cannot be had",
            where="--timesteps",
            remedy=f"a number from 1 to {chain}, or {_FULL_CHAIN}",
        )
    kept = section_timesteps(chain, (int(request.timesteps),))
    return build_diffusion(config.diffusion, kept if len(kept) < chain else None)


def _workers(request: EvaluateRequest) -> Workers:
    workers = Workers(
        WorkersSettings(device=request.device, precision="fp32", threads=request.threads, deterministic=False)
    )
    if workers.world_size > 1:
        raise UsageError(
            f"eval runs in one process, and was started in {workers.world_size}",
            remedy="start it with plain `diffcli eval`",
        )
    return workers


def _checked(name: str | None) -> str | None:
    if name is not None and (not name.isprintable() or "/" in name or name.startswith(".") or not name):
        raise UsageError(
            f"{name!r} cannot name an evaluation",
            where="--name",
            remedy="use printable characters without slashes, the first one not a dot",
        )
    return name
