"""What `sample` made and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
class SampleProvenance:
    """Everything that decides the images of an archive; `sample.json` is this record.

    classes: as they were asked for, None when they were drawn or there are none; eta: None but for DDIM;
    average: how the weights were reconstructed, None when they are a checkpoint's; classifier, cfg: what led
    the samples to their classes, None for what did not.
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
    noise_sha256: str | None
    low_res_sha256: str | None
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


@dataclass(frozen=True, kw_only=True)
class SampleResult:
    """Where an archive, its grid and its record lie; `already_there` if nothing had to be drawn.

    Only the first process (`is_first`) speaks of it.
    """

    run: str
    directory: Path
    archive: Path
    grid: Path
    record: Path
    count: int
    seconds: float
    already_there: bool
    is_first: bool
