"""What training tells while it runs and when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TermMeans:
    """The mean of one term over many images; a quartile of the timesteps without a draw is None."""

    overall: float
    quartiles: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class LoggedTerms:
    """The loss and what is logged beside it; None for what a training does not have.

    mse, vb: parts of a diffusion model's loss. acc1, acc5: how often a classifier finds the class as its
    first guess, or among its first five, as shares of 1.
    """

    loss: TermMeans
    mse: TermMeans | None = None
    vb: TermMeans | None = None
    acc1: TermMeans | None = None
    acc5: TermMeans | None = None


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast an interval went; never part of what a resume must repeat."""

    images_per_second: float
    seconds: float
    data_wait_share: float
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class SampleMetric:
    """A number of the samples that an evaluation drew, such as fd_pixels; never named as one of others is."""

    name: str
    value: float


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """The means over the steps since the row before, after `step` optimizer steps.

    loss to acc5: as in LoggedTerms; `val` are those of the validation split, where they were measured;
    `samples`: numbers of images that were drawn, where some were; `grad_norm` is None when fp16 overflowed in
    all of the steps.
    """

    step: int
    images_seen: int
    loss: TermMeans
    mse: TermMeans | None
    vb: TermMeans | None
    # rows of before there were classifiers lack what has a default
    acc1: TermMeans | None = None
    acc5: TermMeans | None = None
    val: LoggedTerms | None = None
    samples: tuple[SampleMetric, ...] = ()
    grad_norm: float | None
    param_norm: float
    lr: float
    loss_scale: float | None
    speed: Speed


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """One optimizer step is done; `step` counts from 1."""

    step: int


@dataclass(frozen=True, kw_only=True)
class IntervalLogged:
    """A row of metrics is ready."""

    row: MetricRow


@dataclass(frozen=True, kw_only=True)
class SaveBegun:
    """What is saved of a step was copied, and is written from now on; training paused for that long."""

    step: int
    pause_seconds: float


@dataclass(frozen=True, kw_only=True)
class SaveFailed:
    """What was to be saved of a step is not on disk; earlier checkpoints are untouched."""

    step: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved:
    """A checkpoint is on disk, whole; `seconds` went into writing it.

    not_deleted: why an old one that need not stay is still there, or empty.
    """

    step: int
    directory: Path
    seconds: float
    size_bytes: int
    not_deleted: str


@dataclass(frozen=True, kw_only=True)
class PreviewDue:
    """It is time for a small grid of samples."""

    step: int


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """A signal stopped the loop at a step whose checkpoint is on disk."""

    step: int
    signal_number: int


TrainingEvent = StepDone | IntervalLogged | SaveBegun | SaveFailed | CheckpointSaved | PreviewDue | Stopped


@dataclass(frozen=True, kw_only=True)
class TrainingScope:
    """What is being trained where: from which step, how far, and how often it is saved."""

    run_id: str
    directory: Path
    first_step: int
    total_steps: int
    save_every: int
    world_size: int
    device: str


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """How a training ended; only the first process (`is_first`) speaks of it. model_kind: as model.kind."""

    run_id: str
    model_kind: str
    directory: Path
    state: str
    step: int
    total_steps: int
    last_loss: float | None
    is_first: bool
