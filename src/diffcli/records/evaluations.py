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
    """Means over the images at each timestep of the chain that any of them saw, ascending.

    timesteps: of the original chain; vb: terms of the bound, bits/dim; mse: of the predicted x_start and eps;
    images: how many saw the timestep, all of them in older records, which lack it.
    """

    timesteps: tuple[int, ...]
    vb_bits_per_dim: tuple[float, ...]
    x_start_mse: tuple[float, ...]
    eps_mse: tuple[float, ...]
    images: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """The variational bound on the negative log likelihood, means over the images in bits/dim.

    bits_per_dim: prior and vb together; standard_error: of that mean over images, None of a single image;
    image_bits_per_dim: of each image, in their order; older records lack it.
    """

    images: int
    bits_per_dim: float
    standard_error: float | None
    prior_bits_per_dim: float
    vb_bits_per_dim: float
    curve: LikelihoodCurve
    image_bits_per_dim: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EvaluatedImages:
    """Which images: the first `count` of `total`, in the order of their dataset.

    split: None for a plain folder; weak_hash: the hash covers names and sizes only; trained_on: the run was
    trained on these very images; name, variant: of the prepared dataset, empty where there is none, and in
    older records.
    """

    location: Path
    split: str | None
    count: int
    total: int
    content_hash: str
    weak_hash: bool
    trained_on: bool
    name: str = ""
    variant: str = ""


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """Which weights of which run; weights: `model` or such as `ema-0.9999`; checkpoint: its step.

    average: how the weights were reconstructed, None when they are the checkpoint's;
    checkpoint_manifest_sha256: of its manifest, or of the manifests of the snapshots; empty in older records.
    """

    run: str
    checkpoint: int
    weights: str
    average: PostHocAverage | None = None
    checkpoint_manifest_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class LikelihoodSettings:
    """What decides the numbers: the seed of the noise, the clipping of x_start to [-1, 1], and the chain.

    timesteps: length of the chain whose bound it is; full_chain: whether that is the chain of training,
    chain_timesteps long; estimate: whether each image saw a few timesteps of it only, drawn_timesteps, one
    from each of as many strata, else None.
    """

    seed: int
    clip: bool
    timesteps: int
    chain_timesteps: int
    full_chain: bool
    estimate: bool = False
    drawn_timesteps: int | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationConditions:
    """What can change the numbers by rounding, and what else there is to know of how they came about.

    seconds: of the call that finished it; world_size changes nothing.
    """

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
    world_size: int = 1


@dataclass(frozen=True, kw_only=True)
class LikelihoodEvaluation:
    """One evaluation of the likelihood, with all that it takes to repeat it.

    fingerprint: a digest of all that decides the numbers to the last bit; empty in older records.
    """

    kind: Literal["nll"] = "nll"
    model: EvaluatedModel
    images: EvaluatedImages
    settings: LikelihoodSettings
    conditions: EvaluationConditions
    likelihood: Likelihood
    fingerprint: str = ""


@dataclass(frozen=True, kw_only=True)
class PublishedLikelihood:
    """What a paper reports of the model that a preset is, on the same images; source: paper and model."""

    bits_per_dim: float
    source: str


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """An evaluation and the file that records it; already_there: nothing had to be computed.

    picture: of the curve, None when it could not be drawn; published: to be held against it, None for
    nothing. Only the first process (`is_first`) speaks of it.
    """

    name: str
    path: Path
    evaluation: LikelihoodEvaluation
    picture: Path | None
    published: PublishedLikelihood | None
    already_there: bool
    is_first: bool
