"""Ancestral sampling (arXiv 2006.11239, algorithm 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffcli.diffusion.reverse import ReverseStep


def ancestral_step(reverse: ReverseStep, noise: Tensor | None) -> Tensor:
    """x_{t-1} [N, C, H, W] drawn from p(x_{t-1} | x_t) with standard normal noise; its mean without noise."""
    if noise is None:
        return reverse.mean
    # arXiv 2006.11239, algorithm 2, line 4
    return reverse.mean + torch.exp(0.5 * reverse.log_variance) * noise
