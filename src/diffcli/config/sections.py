"""The five sections of a run's configuration.

Every default of diffcli stands here and nowhere else. Counts are optimizer steps unless the name says
otherwise; sizes are pixels.
"""

# ruff: noqa: RUF009 -- `setting` returns a dataclass field, not a default that instances share

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from diffcli.config.settings import (
    above,
    at_least,
    between,
    distinct,
    each,
    one_or_each,
    rate,
    setting,
)

Crop = Literal["center", "random"]
ResizeRecipe = Literal["improved", "guided"]
LabelSource = Literal["filename", "directories"]
ModelKind = Literal["unet", "superres", "classifier"]
Pool = Literal["attention", "adaptive", "spatial", "spatial_v2"]
AttentionOrder = Literal["heads_first", "qkv_first"]
Schedule = Literal["linear", "cosine"]
Predict = Literal["eps", "x_start", "x_prev"]
Variance = Literal["fixed_small", "fixed_large", "learned", "learned_range"]
Objective = Literal["simple", "hybrid", "hybrid_unscaled", "vlb", "vlb_unscaled"]
Precision = Literal["fp32", "bf16", "fp16"]
ScheduleSamplerName = Literal["uniform", "loss-second-moment"]
SolverName = Literal["ancestral", "ddim"]
MicrobatchChoice = int | Literal["auto"]
EmaChoice = float | Literal["first", "none"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What the network sees."""

    name: str = setting("", "prepared dataset to train on, as `diffcli prepare` named it")
    split: str = setting("train", "split of the prepared dataset")
    validation_split: str = setting("", "split that training.eval_every measures a training on; empty: none")
    resolution: int = setting(64, "size of the images, height and width alike, pixels", between(1, 4096))
    low_resolution: int = setting(
        0, "size of the conditioning image of super-resolution, pixels; 0: none", between(0, 4096)
    )
    channels: int = setting(3, "colour channels: 1 gray, 3 RGB", lambda n: None if n in (1, 3) else "1 or 3")
    flip: bool = setting(False, "mirror half of the images left to right while training")
    crop: Crop = setting("center", "how an image larger than the resolution is cut")
    resize_recipe: ResizeRecipe = setting(
        "guided", "guided converts to RGB before resizing, improved after it"
    )
    labels: LabelSource = setting(
        "filename", "class of an image in a plain folder: file name up to the first underscore, or directory"
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network."""

    kind: ModelKind = setting(
        "unet", "unet; superres: it also sees a small image; classifier: it tells the class of noisy images"
    )
    channels: int = setting(
        128,
        "width of the first level; a multiple of 32, for the norm's 32 groups",
        lambda n: None if n > 0 and n % 32 == 0 else "a positive multiple of 32",
    )
    channel_mult: tuple[float, ...] = setting(
        (1.0, 2.0, 3.0, 4.0),
        "width of each level as a multiple of channels",
        each(above(0, at_most=64), at_least_items=1),
    )
    res_blocks: int = setting(2, "residual blocks per level on the way down", between(1, 64))
    attention_resolutions: tuple[int, ...] = setting(
        (16, 8), "sizes of the feature maps that get self-attention, pixels", distinct(each(at_least(1)))
    )
    heads: int = setting(4, "attention heads; unused when head_channels is set", at_least(1))
    head_channels: int = setting(0, "channels per attention head; 0: use heads", at_least(0))
    heads_up: int = setting(0, "attention heads on the way up; 0: as many as heads", at_least(0))
    dropout: float = setting(0.0, "share of activations dropped in each residual block", rate)
    scale_shift: bool = setting(True, "timestep embedding scales and shifts the norm; false: it is added")
    resblock_updown: bool = setting(False, "residual blocks, not convolutions, change the resolution")
    attention_order: AttentionOrder = setting(
        "heads_first", "rows of the attention's projection: q, k, v within each head, or heads within q, k, v"
    )
    classes: int = setting(
        0, "number of classes, told to the network or by a classifier; 0: none", between(0, 100_000)
    )
    pool: Pool = setting("attention", "how a classifier makes its logits of its feature maps")
    checkpoint_blocks: bool = setting(
        False, "compute each block's activations again in the backward pass: less memory, more time"
    )


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The Gaussian process, what the network predicts of it, and the training objective."""

    steps: int = setting(1000, "length T of the diffusion chain, timesteps", between(2, 1_000_000))
    schedule: Schedule = setting("linear", "noise schedule")
    predict: Predict = setting("eps", "what the network predicts")
    variance: Variance = setting("fixed_large", "variance of the reverse process")
    objective: Objective = setting(
        "simple", "L_simple, L_hybrid or L_vlb; the unscaled forms keep vb as it is"
    )
    rescale_timesteps: bool = setting(False, "the network sees t * 1000 / steps in place of t")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How the network is trained."""

    # a step is one 32-bit word of the random numbers' counter
    steps: int = setting(500_000, "optimizer steps in all", between(1, 2**32 - 1))
    batch_size: int = setting(128, "global batch, images per optimizer step over all processes", at_least(1))
    microbatch: MicrobatchChoice = setting(
        0,
        "images per forward pass in one process; 0: its whole share of the batch; auto: as many as fit",
        lambda choice: None if choice == "auto" else at_least(0)(choice),
    )
    lr: float = setting(1e-4, "learning rate", above(0))
    lr_warmup_steps: int = setting(0, "steps over which the learning rate rises from 0; 0: none", at_least(0))
    lr_anneal_steps: int = setting(
        0, "steps after which the learning rate has fallen to 0; 0: it stays", at_least(0)
    )
    weight_decay: float = setting(0.0, "decoupled weight decay of AdamW", at_least(0))
    grad_clip: float = setting(0.0, "largest norm of the whole gradient; 0: no clipping", at_least(0))
    ema_rates: tuple[float, ...] = setting(
        (0.9999,), "decay per step of each moving average of the weights", distinct(each(rate))
    )
    ema_warmup_steps: int = setting(
        0, "N: step k averages with at most (1 + k) / (N + k); 0: the rate from the start", at_least(0)
    )
    precision: Precision = setting("fp32", "number format of the forward and backward pass")
    deterministic: bool = setting(
        False, "only kernels with a fixed order of summation, so that a resume on CUDA is bitwise"
    )
    schedule_sampler: ScheduleSamplerName = setting("uniform", "how training draws its timesteps")
    label_drop: float = setting(
        0.0,
        "share of the labels that training hides, so that the network also learns to do without; for --cfg",
        rate,
    )
    noisy: bool = setting(True, "images as noisy as their timestep says; false, for a classifier only: clean")
    seed: int = setting(0, "seed of all random numbers", between(0, 2**63 - 1))
    log_every: int = setting(10, "steps per row of metrics", at_least(1))
    save_every: int = setting(10_000, "steps per checkpoint", at_least(1))
    eval_every: int = setting(
        0,
        "steps per evaluation, by validation, samples or both, in the row of metrics; 0: never",
        at_least(0),
    )
    eval_images: int = setting(
        1024, "images of data.validation_split to validate on, or all if it has fewer", at_least(1)
    )
    eval_samples: int = setting(
        0,
        "images that every evaluation draws and compares with the training data; 0: none",
        lambda count: None if count == 0 or count >= 2 else "0, or at least 2",
    )
    eval_steps: int = setting(25, "steps of DDIM by which an evaluation draws its samples", at_least(1))
    eval_features: str = setting(
        "pixels",
        "what an evaluation compares samples by: pixels, inception, or a classifier as RUN or RUN@STEP",
        lambda features: None if features else "pixels, inception, RUN or RUN@STEP",
    )
    preview_every: int = setting(0, "steps per small grid of samples; 0: never", at_least(0))
    keep_last: int = setting(3, "newest checkpoints kept; never fewer than 2", at_least(2))
    keep_every: int = setting(
        0, "steps; a checkpoint at a multiple of them is kept for good; 0: none is", at_least(0)
    )
    stop_within_seconds: int = setting(
        0, "seconds from SIGTERM to the end, saved or not; 0: as long as step and save take", at_least(0)
    )
    ema_stds: tuple[float, ...] = setting(
        (0.05, 0.1),
        "relative widths of the two power-function averages whose snapshots give any other width later",
        distinct(each(between(0.01, 0.28), at_least_items=2)),
    )
    ema_snapshot_every: int = setting(
        0, "steps per snapshot of the power-function averages; 0: there are none", at_least(0)
    )


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How `sample` draws images unless it is told otherwise."""

    steps: int | tuple[int, ...] = setting(
        0,
        "timesteps kept of the chain, or a list of counts, one for each equal section; 0: all",
        one_or_each(at_least(0)),
    )
    solver: SolverName = setting("ancestral", "ancestral sampling or DDIM")
    eta: float = setting(0.0, "noise of DDIM: 0 none, 1 as much as ancestral sampling", between(0, 1))
    clip: bool = setting(True, "clip every prediction of x_start to [-1, 1]")
    ema: EmaChoice = setting(
        "first",
        "weights to sample from: an EMA rate, first of training.ema_rates, or none for the raw weights",
        lambda choice: rate(choice) if isinstance(choice, float) else None,
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides what a run computes."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
