"""From one x_T to another on the sphere that noise lies on (arXiv 2010.02502, appendix D.3)."""

from __future__ import annotations

import torch
from torch import Tensor

# nearer than this to one line through 0, the angle says nothing of a way between them
_LEAST_SINE = 1e-6


def slerp(x_a: Tensor, x_b: Tensor, shares: Tensor) -> Tensor:
    """Spherical interpolation of x_a and x_b [C, H, W] at shares [N] in [0, 1] -> [N, C, H, W].

    Share 0 is x_a and share 1 is x_b, bit by bit; between vectors on one line it is linear.
    """
    a, b = x_a.double(), x_b.double()
    share = shares.double().reshape(-1, 1, 1, 1)
    cosine = (a * b).sum() / (a.norm() * b.norm())
    angle = torch.acos(cosine.clamp(-1, 1))
    if torch.sin(angle) < _LEAST_SINE:
        return ((1 - share) * a + share * b).to(x_a.dtype)
    # arXiv 2010.02502, equation 67
    weight_a, weight_b = torch.sin((1 - share) * angle), torch.sin(share * angle)
    return (weight_a / torch.sin(angle) * a + weight_b / torch.sin(angle) * b).to(x_a.dtype)
