"""What `eval` found out and how; a file in a run's evals/ is a LikelihoodEvaluation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from diffcli.records.samples import PostHocAverage

EVALUATION_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class LikelihoodCurve:
    """Means over the images at each timestep of the chain, ascending.

    timesteps: of the original chain; vb: terms of the bound, bits/dim; mse: of the predicted x_start and eps.
    """

    timesteps: tuple[int, ...]
    vb_bits_per_dim: tuple[float, ...]
    x_start_mse: tuple[float, ...]
    eps_mse: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """The variational bound on the negative log likelihood, means over the images in bits/dim.

    bits_per_dim: prior and vb together; standard_error: of that mean over images, None of a single image.
    """

    images: int
    bits_per_dim: float
    standard_error: float | None
    prior_bits_per_dim: float
    vb_bits_per_dim: float
    curve: LikelihoodCurve


@dataclass(frozen=True, kw_only=True)
class EvaluatedImages:
    """Which images: the first `count` of `total`, in the order of their dataset.

    split: None for a plain folder; weak_hash: the hash covers names and sizes only; trained_on: the run was
    trained on these very images.
    """

    location: Path
    split: str | None
    count: int
    total: int
    content_hash: str
    weak_hash: bool
    trained_on: bool


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """Which weights of which run; weights: `model` or such as `ema-0.9999`; checkpoint: its step.

    average: how the weights were reconstructed, None when they are the checkpoint's.
    """

    run: str
    checkpoint: int
    weights: str
    average: PostHocAverage | None = None


@dataclass(frozen=True, kw_only=True)
class LikelihoodSettings:
    """What decides the numbers: the seed of the noise, the clipping of x_start to [-1, 1], and the chain.

    timesteps: length of the chain whose bound it is; full_chain: whether that is the chain of training,
    chain_timesteps long.
    """

    seed: int
    clip: bool
    timesteps: int
    chain_timesteps: int
    full_chain: bool


@dataclass(frozen=True, kw_only=True)
class EvaluationConditions:
    """What can change the numbers by rounding, and what else there is to know of how they came about."""

    batch_size: int
    device: str
    threads: int
    precision: str
    diffcli: str
    git_commit: str | None
    python: str
    torch: str
    numpy: str
    platform: str
    command_line: tuple[str, ...]
    started_at: datetime
    seconds: float


@dataclass(frozen=True, kw_only=True)
class LikelihoodEvaluation:
    """One evaluation of the likelihood, with all that it takes to repeat it."""

    kind: Literal["nll"] = "nll"
    model: EvaluatedModel
    images: EvaluatedImages
    settings: LikelihoodSettings
    conditions: EvaluationConditions
    likelihood: Likelihood


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """An evaluation and the file that records it."""

    name: str
    path: Path
    evaluation: LikelihoodEvaluation
