"""What `sample` made and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# beside an archive, how it was made
SAMPLE_RECORD_FILE = "sample.json"

GivenImagesKind = Literal["archive", "prepared dataset", "folder", "image"]


@dataclass(frozen=True, kw_only=True)
class PostHocAverage:
    """A power-function average that was reconstructed from the EMA snapshots of a run.

    std: its width relative to the step it is for; snapshot_steps, snapshot_stds: which stored averages it was
    made of, newest and narrowest first; predicted_relative_error: of its profile, 0 when it was stored.
    """

    std: float
    snapshot_steps: tuple[int, ...]
    snapshot_stds: tuple[float, ...]
    predicted_relative_error: float


@dataclass(frozen=True, kw_only=True)
class ClassifierProvenance:
    """The classifier that led samples towards their classes; scale: what its gradient was multiplied by."""

    run: str
    checkpoint: int
    checkpoint_manifest_sha256: str
    weights: str
    scale: float


@dataclass(frozen=True, kw_only=True)
class GivenImagesOrigin:
    """Where images lay that were given to `sample`.

    fingerprint: of the archive that they are, as its own record has it; None for all else; resized: how many
    were larger, and cut or averaged to size.
    """

    path: str
    kind: GivenImagesKind
    fingerprint: str | None
    resized: int


@dataclass(frozen=True, kw_only=True)
class EncodedStart:
    """x_T are images that DDIM encoded; images_sha256: over their size, pixels and labels."""

    images_sha256: str
    kind: Literal["encoded"] = "encoded"


@dataclass(frozen=True, kw_only=True)
class InterpolationEnd:
    """The x_T of sample 0 of a seed, or an image that DDIM encoded; the other is None."""

    seed: int | None
    image_sha256: str | None


@dataclass(frozen=True, kw_only=True)
class InterpolatedStart:
    """x_T are evenly spaced on the way from one to another, both included."""

    first: InterpolationEnd
    last: InterpolationEnd
    kind: Literal["interpolated"] = "interpolated"


StartFacts = EncodedStart | InterpolatedStart


@dataclass(frozen=True, kw_only=True)
class SampleProvenance:
    """Everything that decides the images of an archive; `sample.json` is this record.

    classes: as they were asked for, None when they were not; classes_sha256: over what each image is told and
    labelled with, None where that is nothing; eta: None but for DDIM;
    average: how the weights were reconstructed, None when they are a checkpoint's; classifier, cfg: what led
    the samples to their classes, None for what did not; start: None when x_T are drawn, or come from the file
    of noise_sha256; low_res_sha256: over size, pixels and labels of the small images; low_res_origin: where
    they lay; drawn: how many of the images the call drew that took `seconds`, None in older records.
    """

    run: str
    dataset_hash: str
    checkpoint: int
    checkpoint_manifest_sha256: str
    weights: str
    average: PostHocAverage | None
    classifier: ClassifierProvenance | None
    cfg: float | None
    solver: str
    steps: int
    timesteps: tuple[int, ...]
    eta: float | None
    clip: bool
    seed: int
    count: int
    batch_size: int
    classes: str | None
    classes_sha256: str | None
    noise_sha256: str | None
    start: StartFacts | None
    low_res_sha256: str | None
    low_res_origin: GivenImagesOrigin | None
    device: str
    threads: int
    world_size: int
    precision: str
    diffcli: str
    git_commit: str | None
    python: str
    torch: str
    numpy: str
    platform: str
    command_line: tuple[str, ...]
    created_at: str
    seconds: float
    drawn: int | None = None


@dataclass(frozen=True, kw_only=True)
class SampleResult:
    """Where an archive, its grid and its record lie; `already_there` if nothing had to be done.

    taken: how many of its images were copied from other archives of the run. Only the first process
    (`is_first`) speaks of it.
    """

    run: str
    directory: Path
    archive: Path
    grid: Path
    record: Path
    count: int
    taken: int
    seconds: float
    already_there: bool
    is_first: bool


@dataclass(frozen=True, kw_only=True)
class CascadeResult:
    """The archives of all stages, each enlarged from the one before it; the last is what was asked for."""

    stages: tuple[SampleResult, ...]


@dataclass(frozen=True, kw_only=True)
class InterpolateResult:
    """The archive of the frames, and beside it pictures of all of them: in a row, and one after the other."""

    samples: SampleResult
    strip: Path
    animation: Path
