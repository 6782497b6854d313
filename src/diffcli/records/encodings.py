"""What `sample --encode` found out of its images; `encoding.json` is an EncodingRecord."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffcli.records.samples import GivenImagesOrigin, SampleResult

ENCODING_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class ReconstructionError:
    """How far images are from what their x_T draws, in levels of 0..255.

    psnr_db: over all pixels of all images, None when none differs; worst_image: the index of the one that
    differs most.
    """

    mean_absolute: float
    psnr_db: float | None
    worst_image: int
    worst_mean_absolute: float


@dataclass(frozen=True, kw_only=True)
class LatentStatistics:
    """Over all numbers of all x_T; noise has mean 0 and standard deviation 1."""

    mean: float
    standard_deviation: float


@dataclass(frozen=True, kw_only=True)
class EncodingRecord:
    """Which images were encoded, and how well; images_sha256: over their size, pixels and labels.

    timesteps: of DDIM, there and back.
    """

    timesteps: int
    images: GivenImagesOrigin
    images_sha256: str
    latents_sha256: str
    latents: LatentStatistics
    reconstruction: ReconstructionError


@dataclass(frozen=True, kw_only=True)
class EncodeResult:
    """The archive of the reconstructions, and beside it x_T, a picture to compare, and the record."""

    samples: SampleResult
    latents: Path
    comparison: Path
    record: Path
    encoding: EncodingRecord
