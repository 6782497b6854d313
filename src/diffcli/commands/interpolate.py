"""Draw images from x_T on the way between two others, which are seeds' or encoded images'."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffcli.commands.conditions import (
    ConditionsRequest,
    SampleConditions,
    listed_classes,
    wanted_images,
)
from diffcli.commands.given_noise import GivenNoise
from diffcli.commands.latents import encoded
from diffcli.commands.sampling_job import SamplingJob, draw_archive
from diffcli.commands.sampling_process import SampleProgress, sampling_process
from diffcli.commands.sampling_request import SampleRequest, SamplingOrder, find_deterministic_order
from diffcli.data.given_images import GivenImages, read_given_images
from diffcli.errors import UsageError
from diffcli.images.decode import printable
from diffcli.images.grid import grid, write_gif, write_png
from diffcli.records.samples import InterpolatedStart, InterpolateResult, InterpolationEnd
from diffcli.sampling.interpolation import slerp
from diffcli.sampling.noise import initial_noise

STRIP = "strip.png"
ANIMATION = "interpolation.gif"
_OPTION = "--interpolate"
_SEED = re.compile(r"(?:seed:)?([0-9]{1,19})")
_LARGEST_SEED = 2**63 - 1
_STRIP_LEAST_PIXELS = 32
_ANIMATION_LEAST_PIXELS = 128
_FRAME_SECONDS = 0.12


@dataclass(frozen=True, kw_only=True)
class InterpolateRequest:
    """What `diffcli sample --interpolate` was asked for: two ends, each a seed or a file, and how to sample.

    frames: images in all, at least 2, both ends included.
    """

    first: str
    last: str
    frames: int
    sampling: SampleRequest


def interpolate(request: InterpolateRequest, progress: SampleProgress) -> InterpolateResult:
    """Draw the frames into an archive, with a strip and an animation of them.

    Raises InterruptedRunError after a clean stop, UsageError for what has no way between, and what
    `read_given_images` raises.
    """
    order = find_deterministic_order(request.sampling, _OPTION)
    if order.config.model.kind == "superres":
        raise UsageError(
            f"{order.run.id} enlarges small images, and between two of those there is no way",
            where=_OPTION,
            remedy="interpolate in the run that draws the small ones, then enlarge the frames: --low-res",
        )
    way = Interpolation(first=_end(request.first, order), last=_end(request.last, order))
    conditions = _conditions(request, order, way)
    with sampling_process(order.request.device, order.request.threads, progress) as process:
        drawn = draw_archive(order, conditions, process, way)
    return InterpolateResult(
        samples=drawn, strip=drawn.directory / STRIP, animation=drawn.directory / ANIMATION
    )


def _conditions(request: InterpolateRequest, order: SamplingOrder, way: Interpolation) -> SampleConditions:
    """One class for all frames, if the network knows any."""
    names, text = order.class_names, order.request.classes
    listed = listed_classes(text, order.config, names)
    if order.config.model.classes and len(listed) != 1:
        raise UsageError(
            f"{_OPTION} needs one class for all its frames",
            where=f"--class {text}" if listed else "--class is not given",
            remedy="one class of this network; between two classes there is no way in x_T",
        )
    classes = torch.full((request.frames,), listed[0]) if listed else None
    return SampleConditions(
        count=request.frames,
        classes=classes,
        labels=classes,
        classes_per_round=0,
        noise=None,
        low_res=None,
        remarks=tuple(end.remark for end in way.images if end.remark),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _End:
    """A seed, or an image; the other is None."""

    seed: int | None
    image: GivenImages | None

    @property
    def facts(self) -> InterpolationEnd:
        return InterpolationEnd(seed=self.seed, image_sha256=self.image.sha256 if self.image else None)


def _end(text: str, order: SamplingOrder) -> _End:
    seed = _SEED.fullmatch(text)
    if seed is not None and int(seed.group(1)) <= _LARGEST_SEED:
        return _End(seed=int(seed.group(1)), image=None)
    path = Path(text)
    if path.is_dir():
        raise _no_end(path, "is a directory")
    wishes = ConditionsRequest(count=1, seed=0, classes=order.request.classes, noise=None, low_res=None)
    wanted = wanted_images(_OPTION, wishes, order.config, order.class_names)
    image = read_given_images(path, wanted)
    if image.origin.kind != "image":
        raise _no_end(path, "is an archive, of which no image is named")
    return _End(seed=None, image=image)


def _no_end(path: Path, what: str) -> UsageError:
    return UsageError(
        f"{printable(path)} {what}", where=_OPTION, remedy="give an image file, or a seed such as seed:3"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Interpolation:
    """The way between two x_T as the start of samples. Implements `SampleStart`."""

    first: _End
    last: _End
    prefix: str = "interpolate-"

    @property
    def facts(self) -> InterpolatedStart:
        """As `SampleStart`."""
        return InterpolatedStart(first=self.first.facts, last=self.last.facts)

    @property
    def images(self) -> list[GivenImages]:
        """Those of the ends that are images."""
        return [end.image for end in (self.first, self.last) if end.image is not None]

    def noise(self, job: SamplingJob, scratch: Path) -> GivenNoise:
        """As `SampleStart`."""
        latents = iter(())
        if self.images:
            pixels = np.concatenate([image.images for image in self.images])
            latents = iter(torch.from_numpy(np.array(encoded(job, pixels, scratch))))
        first, last = (
            next(latents) if end.seed is None else _drawn(end.seed, job) for end in (self.first, self.last)
        )
        return GivenNoise(x=slerp(first, last, torch.linspace(0, 1, job.plan.count)).numpy())

    def add_files(self, directory: Path, job: SamplingJob) -> None:
        """As `SampleStart`: all frames in a row, and one after the other."""
        with np.load(directory / job.plan.file_name, allow_pickle=False) as archive:
            frames = archive["arr_0"]
        size = job.plan.height
        strip = grid(frames, columns=len(frames), magnify=max(1, _STRIP_LEAST_PIXELS // size))
        write_png(directory / STRIP, strip)
        write_gif(
            directory / ANIMATION,
            frames,
            magnify=max(1, _ANIMATION_LEAST_PIXELS // size),
            frame_seconds=_FRAME_SECONDS,
        )


def _drawn(seed: int, job: SamplingJob) -> Tensor:
    """x_T of sample 0 of a seed, float32 [C, H, W] on the CPU."""
    samples = torch.zeros(1, dtype=torch.int64, device=job.process.workers.device)
    shape = (job.plan.channels, job.plan.height, job.plan.width)
    return initial_noise(seed, samples, shape)[0].cpu()
