"""The learning rate as a pure function of the optimizer step."""

from __future__ import annotations

from diffcli.config.sections import TrainingConfig


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The rate of optimizer step `step` (from 0): linear warm-up times linear annealing to 0."""
    warmup = min(1.0, (step + 1) / config.lr_warmup_steps) if config.lr_warmup_steps else 1.0
    anneal = max(0.0, 1.0 - step / config.lr_anneal_steps) if config.lr_anneal_steps else 1.0
    return config.lr * warmup * anneal
