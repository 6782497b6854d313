"""Bound the likelihood of images under a run's network, batch by batch in all processes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from diffcli.commands.batch_loop import compute_missing
from diffcli.commands.evaluation_images import EvaluationImages, ImageBatch, choose_images
from diffcli.commands.likelihood_provenance import (
    LikelihoodProvenance,
    default_name,
    stands_already,
)
from diffcli.commands.likelihood_request import (
    LikelihoodRequest,
    evaluated_chain,
    evaluated_config,
    timestep_strata,
)
from diffcli.commands.published_likelihoods import published_beside
from diffcli.commands.sampling_process import SampleProgress, SamplingProcess, sampling_process
from diffcli.commands.weights import LoadedNetwork, default_batch_size, load_network
from diffcli.config.sections import RunConfig
from diffcli.diffusion.build import GaussianDiffusion
from diffcli.diffusion.likelihood import LikelihoodStep, likelihood_steps
from diffcli.evaluation.bound_parts import BoundParts
from diffcli.evaluation.likelihood import (
    BatchBounds,
    batch_bounds,
    likelihood_noise,
    mean_likelihood,
    on_host,
)
from diffcli.evaluation.timestep_strata import TimestepStrata
from diffcli.parts import BatchPlan
from diffcli.plots.figures import can_draw
from diffcli.plots.likelihood_curve import draw_likelihood_curve
from diffcli.records.evaluations import (
    EVALUATION_SCHEMA,
    EvaluationResult,
    LikelihoodEvaluation,
)
from diffcli.registry.create import Run, open_run
from diffcli.registry.json_records import write_record


def measure_likelihood(request: LikelihoodRequest, progress: SampleProgress) -> EvaluationResult:
    """Bound the likelihood of the images and record it in the run's evals/, going on from an interruption.

    Raises MissingError, UsageError and CorruptError for what is not there, does not fit or is damaged, and
    InterruptedRunError after a clean stop. Main thread only.
    """
    run = open_run(request.runs_home, request.run)
    config = evaluated_config(request, run)
    diffusion = evaluated_chain(request, config)
    strata = timestep_strata(request, diffusion)
    images = choose_images(request.images, run, config)
    with sampling_process(request.device, request.threads, progress) as process:
        loaded = load_network(
            run,
            config,
            step=request.checkpoint,
            ema=config.sampling.ema,
            ema_std=request.ema_std,
            workers=process.workers,
        )
        return LikelihoodJob(
            request=request,
            run=run,
            config=config,
            diffusion=diffusion,
            strata=strata,
            images=images,
            loaded=loaded,
            process=process,
        ).run_to_the_end()


@dataclass(frozen=True, kw_only=True, eq=False)
class _BatchSoFar:
    """A batch of images, the internal steps that each is to see, int64 [N, K], and those that it has seen."""

    images: ImageBatch
    at: Tensor
    steps: list[LikelihoodStep]


@dataclass(frozen=True, kw_only=True, eq=False)
class LikelihoodJob:
    """One evaluation of the likelihood, with everything found and loaded, in one of its processes."""

    request: LikelihoodRequest
    run: Run
    config: RunConfig
    diffusion: GaussianDiffusion
    strata: TimestepStrata
    images: EvaluationImages
    loaded: LoadedNetwork
    process: SamplingProcess

    def run_to_the_end(self) -> EvaluationResult:
        """Work out the bounds that are missing, then let the first process add them up."""
        began = time.monotonic()
        workers, provenance = self.process.workers, self.provenance
        path = self.run.paths.evaluations / f"{self.request.name or default_name(provenance)}.json"
        self._tell_caveats()
        parts = BoundParts(path.with_name(f".{path.stem}.parts"), self.plan, chain_steps=self.diffusion.steps)
        found = workers.first_decides(
            lambda: stands_already(path, provenance, parts, force=self.request.force)
        )
        if found is not None:
            return self._result(path, found, already_there=True)
        workers.first_decides(lambda: parts.begin(provenance.fingerprint))
        compute_missing(
            parts,
            steps=self.strata.count,
            steps_of=self._batch,
            content=self._bounds,
            process=self.process,
            told_per_image=self.strata.count,
        )
        made = workers.first_decides(lambda: self._finish(path, parts, time.monotonic() - began))
        return self._result(path, made, already_there=False)

    @cached_property
    def provenance(self) -> LikelihoodProvenance:
        """How the numbers come about, as far as it is known before they do."""
        return LikelihoodProvenance.of(self)

    @property
    def plan(self) -> BatchPlan:
        """The images, and in which batches."""
        size = self.request.batch_size or default_batch_size(self.config)
        return BatchPlan(count=self.images.count, batch_size=size)

    def _tell_caveats(self) -> None:
        """Say what a reader of the numbers should know beforehand."""
        for remark in self.loaded.remarks:
            self.process.tell(remark)
        if self.provenance.images.trained_on:
            self.process.tell(f"warning: {self.run.id} was trained on these very images")

    def _batch(self, batch: int) -> Iterator[_BatchSoFar]:
        """The steps of a batch, one column after the other."""
        images = self.images.batch(self.plan.images(batch), self.process.workers.device)
        seed = self.request.seed
        at = self.strata.drawn(seed, images.indices)
        so_far = _BatchSoFar(images=images, at=at, steps=[])
        for step in likelihood_steps(
            self.loaded.denoiser(images.conditioning, self.request.precision),
            self.diffusion,
            images.x_start,
            at,
            likelihood_noise(self.diffusion, seed, images.indices, images.x_start.shape[1:]),
            clip=self.config.sampling.clip,
        ):
            so_far.steps.append(on_host(step))
            yield so_far

    def _bounds(self, done: _BatchSoFar) -> BatchBounds:
        """What is kept of a batch that has seen all its steps."""
        return batch_bounds(self.diffusion, done.images.x_start, done.at, done.steps, self.strata.weights)

    def _finish(self, path: Path, parts: BoundParts, seconds: float) -> LikelihoodEvaluation:
        conditions = dataclasses.replace(self.provenance.conditions, seconds=round(seconds, 3))
        evaluation = LikelihoodEvaluation(
            model=self.provenance.model,
            images=self.provenance.images,
            settings=self.provenance.settings,
            conditions=conditions,
            likelihood=mean_likelihood(self.diffusion, parts.read()),
            fingerprint=self.provenance.fingerprint,
        )
        picture = _picture_of(path)
        # of the record that is replaced, if any
        picture.unlink(missing_ok=True)
        write_record(path, evaluation, schema=EVALUATION_SCHEMA)
        parts.remove()
        return evaluation

    def _result(
        self, path: Path, evaluation: LikelihoodEvaluation, *, already_there: bool
    ) -> EvaluationResult:
        is_first = self.process.workers.is_first
        return EvaluationResult(
            name=path.stem,
            path=path,
            evaluation=evaluation,
            picture=self._draw(path, evaluation) if is_first else None,
            published=published_beside(
                self.run.record.preset, self.config, self.images, self.provenance.settings
            ),
            already_there=already_there,
            is_first=is_first,
        )

    def _draw(self, path: Path, evaluation: LikelihoodEvaluation) -> Path | None:
        """The picture of the curve beside the record; None without matplotlib, with advice."""
        picture = _picture_of(path)
        if not picture.is_file():
            if not can_draw():
                self.process.tell(
                    "no picture of the curve: pip install 'diffcli[plots]', and the same command draws it"
                )
                return None
            title = f"{evaluation.model.run}, {path.stem}"
            draw_likelihood_curve(picture, evaluation.likelihood.curve, title=title)
        return picture


def _picture_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}.png")
