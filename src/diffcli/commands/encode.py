"""Encode images into the x_T that DDIM draws them from, and draw them from it again."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffcli import durable
from diffcli.commands.conditions import ConditionsRequest, SampleConditions, find_conditions, wanted_images
from diffcli.commands.given_noise import GivenNoise
from diffcli.commands.latents import encoded
from diffcli.commands.sampling_job import SamplingJob, draw_archive
from diffcli.commands.sampling_process import SampleProgress, sampling_process
from diffcli.commands.sampling_request import SampleRequest, SamplingOrder, find_deterministic_order
from diffcli.data.given_images import GivenImages, read_given_images
from diffcli.errors import UsageError
from diffcli.images.grid import grid, write_png
from diffcli.records.encodings import (
    ENCODING_SCHEMA,
    EncodeResult,
    EncodingRecord,
    LatentStatistics,
    ReconstructionError,
)
from diffcli.records.samples import EncodedStart
from diffcli.registry.json_records import read_record, write_record
from diffcli.sampling.archive import LATENTS, Images

RECORD = "encoding.json"
COMPARISON = "comparison.png"
_OPTION = "--encode"
_COMPARED = 50
_PER_ROW = 10
_LEAST_PIXELS = 32
_WHITE = 255


@dataclass(frozen=True, kw_only=True)
class EncodeRequest:
    """What `diffcli sample --encode` was asked for: where the images lie, and how to sample."""

    images: Path
    sampling: SampleRequest


def encode(request: EncodeRequest, progress: SampleProgress) -> EncodeResult:
    """Write x_T of the images, and the images that DDIM draws from it, going on from what is there.

    Raises InterruptedRunError after a clean stop, UsageError for what cannot be encoded, and what
    `read_given_images` raises.
    """
    order = find_deterministic_order(request.sampling, _OPTION)
    images = _images(request, order)
    conditions = _conditions(request, order, images)
    with sampling_process(order.request.device, order.request.threads, progress) as process:
        drawn = draw_archive(order, conditions, process, Encoding(images=images))
    return EncodeResult(
        samples=drawn,
        latents=drawn.directory / LATENTS,
        comparison=drawn.directory / COMPARISON,
        record=drawn.directory / RECORD,
        encoding=read_record(EncodingRecord, drawn.directory / RECORD, schema=ENCODING_SCHEMA),
    )


def _images(request: EncodeRequest, order: SamplingOrder) -> GivenImages:
    names = order.class_names
    return read_given_images(
        request.images, wanted_images(_OPTION, _wishes(request, order), order.config, names)
    )


def _wishes(request: EncodeRequest, order: SamplingOrder) -> ConditionsRequest:
    """What is known before the images are: a network that enlarges is given their own small versions."""
    asked = request.sampling
    enlarges = order.config.model.kind == "superres"
    return ConditionsRequest(
        count=asked.count,
        seed=asked.seed,
        classes=asked.classes,
        noise=None,
        low_res=request.images if enlarges and asked.low_res is None else asked.low_res,
    )


def _conditions(request: EncodeRequest, order: SamplingOrder, images: GivenImages) -> SampleConditions:
    """The classes of the images, unless others are asked for."""
    wishes = dataclasses.replace(_wishes(request, order), count=len(images.images))
    config = order.config
    conditions = find_conditions(wishes, config, order.class_names)
    conditions = dataclasses.replace(conditions, remarks=(images.remark,) if images.remark else ())
    if wishes.classes is not None:
        return conditions
    if config.model.classes and images.labels is None:
        raise UsageError(
            "nothing tells the classes of the images, which this network is to be told",
            where=_OPTION,
            remedy="give them with --class; one class is that of all images",
        )
    return dataclasses.replace(
        conditions, classes=images.labels if config.model.classes else None, labels=images.labels
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoding:
    """Images as the start of samples. Implements `SampleStart`."""

    images: GivenImages
    prefix: str = "encode-"

    @property
    def facts(self) -> EncodedStart:
        """As `SampleStart`."""
        return EncodedStart(images_sha256=self.images.sha256)

    def noise(self, job: SamplingJob, scratch: Path) -> GivenNoise:
        """As `SampleStart`."""
        return GivenNoise(x=encoded(job, self.images.images, scratch))

    def add_files(self, directory: Path, job: SamplingJob) -> None:
        """As `SampleStart`: x_T, originals beside reconstructions, and how far they are from each other."""
        assert job.conditions.noise is not None
        with np.load(directory / job.plan.file_name, allow_pickle=False) as archive:
            reconstructions = archive["arr_0"]
        latents = directory / LATENTS
        with durable.storage_errors(latents):
            np.save(latents, job.conditions.noise.x, allow_pickle=False)
        write_png(directory / COMPARISON, _comparison(self.images.images, reconstructions))
        record = EncodingRecord(
            timesteps=job.diffusion.steps,
            images=self.images.origin,
            images_sha256=self.images.sha256,
            latents_sha256=durable.sha256(latents),
            latents=_statistics(job.conditions.noise.x),
            reconstruction=reconstruction_error(self.images.images, reconstructions),
        )
        write_record(directory / RECORD, record, schema=ENCODING_SCHEMA)


def reconstruction_error(originals: Images, reconstructions: Images) -> ReconstructionError:
    """How far two sets of images, uint8 [N, H, W, C], are from each other, in levels of 0 to 255.

    Reconstructions were truncated to whole levels, as all samples are: that alone makes half a level.
    """
    # image by image: all of them in float64 may not fit into memory
    differences = (
        original.astype(np.float64) - other
        for original, other in zip(originals, reconstructions, strict=True)
    )
    errors = np.array([(np.abs(image).mean(), np.square(image).mean()) for image in differences])
    by_image, mean_square = errors[:, 0], float(errors[:, 1].mean())
    return ReconstructionError(
        mean_absolute=float(by_image.mean()),
        psnr_db=10 * math.log10(255**2 / mean_square) if mean_square else None,
        worst_image=int(by_image.argmax()),
        worst_mean_absolute=float(by_image.max()),
    )


def _statistics(latents: npt.NDArray[np.float32]) -> LatentStatistics:
    moments = np.array([(x.mean(dtype=np.float64), np.square(x, dtype=np.float64).mean()) for x in latents])
    mean, mean_square = moments.mean(axis=0).tolist()
    return LatentStatistics(mean=mean, standard_deviation=math.sqrt(max(0.0, mean_square - mean**2)))


def _comparison(originals: Images, reconstructions: Images) -> Images:
    """Rows of originals, each above the row of its reconstructions."""
    count = min(len(originals), _COMPARED)
    columns = min(count, _PER_ROW)
    blank = np.full((-count % columns, *originals.shape[1:]), _WHITE, dtype=np.uint8)
    rows = [
        np.concatenate((images[:count], blank)).reshape(-1, columns, *originals.shape[1:])
        for images in (originals, reconstructions)
    ]
    pairs = np.stack(rows, axis=1).reshape(-1, *originals.shape[1:])
    return grid(pairs, columns=columns, magnify=max(1, _LEAST_PIXELS // originals.shape[1]))
