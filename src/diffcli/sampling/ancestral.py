"""Ancestral sampling (arXiv 2006.11239, algorithm 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffcli.diffusion.reverse import ReverseStep


def ancestral_step(reverse: ReverseStep, noise: Tensor | None) -> Tensor:
    """x_{t-1} [N, C, H, W]: p(x_{t-1} | x_t) drawn with standard normal noise; without noise (t = 0), its mean."""
    if noise is None:
        return reverse.mean
    # arXiv 2006.11239, algorithm 2, line 4
    return reverse.mean + torch.exp(0.5 * reverse.log_variance) * noise
