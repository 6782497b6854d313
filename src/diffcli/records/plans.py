"""What `train --dry-run` tells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PlannedSetting:
    """One setting with its value as TOML, where the value came from, and what it means."""

    path: str
    value: str
    origin: str
    help: str


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What a training would be and need; sizes are estimates but for the parameters and the checkpoint.

    microbatch: the whole batch when it is auto, which may come to take fewer images.
    """

    preset: str
    settings: tuple[PlannedSetting, ...]
    parameters: int
    state_bytes: int
    activation_bytes: int
    microbatch: int
    microbatch_is_auto: bool
    checkpoint_bytes: int
    disk_bytes: int
    free_disk_bytes: int
    steps: int
    images: int
    dataset: str
    dataset_ready: bool
    remedy: str
