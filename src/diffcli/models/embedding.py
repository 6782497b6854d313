"""The embedding of the timestep and the class that conditions every residual block."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffcli.models.precision import without_autocast


def timestep_embedding(t: Tensor, width: int, *, max_period: float = 10_000) -> Tensor:
    """Sinusoidal embedding of timesteps, cosines first: float32 [B, width] for t [B], int64 or float32.

    An odd width gets a column of zeros at the end. Source: Vaswani et al. 2017, section 3.5.
    """
    half = width // 2
    # float32 throughout, in this order: the published networks were trained on exactly these numbers
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
    frequencies = torch.exp(-math.log(max_period) * exponents)
    angles = t.float()[:, None] * frequencies[None]
    embedding = torch.cat((torch.cos(angles), torch.sin(angles)), dim=1)
    return F.pad(embedding, (0, width % 2))


class ConditionEmbedding(nn.Module):
    """Timestep and class as one vector, already through the SiLU that every block would apply to it."""

    def __init__(self, channels: int, width: int, *, classes: int) -> None:
        """channels: of the sinusoids; width: of the result; classes: 0 for a network without classes."""
        super().__init__()
        self.channels = channels
        self.hidden = nn.Linear(channels, width)
        self.output = nn.Linear(width, width)
        self.classes = nn.Embedding(classes, width) if classes else None

    def forward(self, t: Tensor, y: Tensor | None) -> Tensor:
        """[B, width] in the weights' dtype for t [B], int64 or float32, and y int64 [B] or None."""
        assert (y is None) == (self.classes is None), "y goes with a class-conditional network only"
        # single precision under autocast too: the vector steers every block and costs next to nothing
        with without_autocast(t.device):
            sinusoids = timestep_embedding(t, self.channels).to(self.hidden.weight.dtype)
            embedding: Tensor = self.output(F.silu(self.hidden(sinusoids)))
            if self.classes is not None:
                embedding = embedding + self.classes(y)
            return F.silu(embedding)
