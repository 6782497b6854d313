"""What the image metrics ask of whatever turns images into features."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Features of N images, float32 on their device: pooled [N, D], spatial [N, S] where there are any."""

    pooled: Tensor
    spatial: Tensor | None


class FeatureExtractor(Protocol):
    """Turns images into features, each image by itself: a batch changes them by rounding only.

    name: "inception", "pixels", or the id of a run; digest: SHA-256 over all that decides the features.
    """

    @property
    def name(self) -> str:
        """What results call it."""

    @property
    def digest(self) -> str:
        """The same for two extractors when they give the same features."""

    @property
    def dimensions(self) -> int:
        """D, numbers in a pooled feature."""

    @property
    def spatial_dimensions(self) -> int | None:
        """S, numbers in a spatial feature; None where there are none."""

    def __call__(self, images: Tensor) -> Features:
        """Features of images uint8 [N, H, W, C], C 1 or 3, which lie on the extractor's device."""

    def probabilities(self, pooled: Tensor) -> Tensor | None:
        """Class probabilities float32 [N, K] on the CPU of pooled features [N, D]; None without classes."""


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Neither gradients, nor autocast, nor TF32, which on CUDA rounds what goes into a product to 10 bits."""
    # Workers turns the first off for good; features must not depend on who computes them
    convolutions = torch.backends.cudnn.allow_tf32
    products = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.backends.cuda.matmul.allow_tf32 = products
