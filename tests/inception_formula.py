"""Weights and images by formula, so that two programs can be compared where no published weights are.

Whole numbers scrambled by multiplications, the same bits on every machine.
"""

from __future__ import annotations

import math
from functools import cache
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from diffcli.evaluation.inception import InceptionV3

# a third more than numbers have behind a ReLU whose inputs were normal, (1 - 1 / pi) / 2: so rounding fades
_VARIANCE = 0.45


def scrambled(count: int, salt: int) -> Tensor:
    """Numbers in [0, 1) that look drawn: float64 [count], multiples of 2**-32."""
    # products and sums of 32-bit words wrap around
    words = np.arange(count, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(salt * 40503 % 2**32)
    for _ in range(2):
        words ^= words >> 16
        words *= np.uint32(0x45D9F3B)
    words ^= words >> 16
    return torch.from_numpy(words.astype(np.float64) / 2**32)


@cache
def formula_weights(*, trained_gamma: bool) -> dict[str, Tensor]:
    """A file in pytorch-fid's layout; without `trained_gamma` it could be in OpenAI's too."""
    weights = {}
    for name, empty in InceptionV3().state_dict().items():
        # a salt of its own for each name, whatever their order
        between = scrambled(empty.numel(), crc32(name.encode())).reshape(empty.shape)
        weights[name] = _scaled(name, between, trained_gamma).float()
        if name.endswith("running_var"):
            weights[name.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    weights["fc.bias"] = (scrambled(1008, 1) - 0.5).float()
    return weights


def _scaled(name: str, between: Tensor, trained_gamma: bool) -> Tensor:
    """Numbers in [0, 1) made such that what tells images apart neither dies nor drowns on its way."""
    if name.endswith("bn.weight"):
        return 0.9 + 0.2 * between if trained_gamma else torch.ones_like(between)
    if name.endswith("running_var"):
        return _VARIANCE * (0.9 + 0.2 * between)
    if name.endswith(("running_mean", "bn.bias")):
        return 0.1 * (between - 0.5)
    # a kernel that adds up to nothing does not see what all its inputs have in common
    kernels = (between - between.flatten(1).mean(dim=1).reshape(-1, *(1,) * (between.ndim - 1))) * math.sqrt(
        12
    )
    return kernels / math.sqrt(between[0].numel())


def formula_images(count: int, height: int, width: int, *, salt: int, channels: int = 3) -> Tensor:
    """Coloured squares under noise: uint8 [count, height, width, channels]."""
    squares = scrambled(count * channels * 4 * 4, salt).reshape(count, channels, 4, 4)
    rows, columns = (torch.arange(side) * 4 // side for side in (height, width))
    large = squares[:, :, rows][:, :, :, columns]
    noise = scrambled(large.numel(), salt + 1).reshape(large.shape)
    return (256 * (0.7 * large + 0.3 * noise)).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


# the scopes of TensorFlow's graph, written out from lists of its nodes
_BLOCK_35 = {
    "branch1x1": "conv",
    "branch5x5_1": "tower.conv",
    "branch5x5_2": "tower.conv_1",
    "branch3x3dbl_1": "tower_1.conv",
    "branch3x3dbl_2": "tower_1.conv_1",
    "branch3x3dbl_3": "tower_1.conv_2",
    "branch_pool": "tower_2.conv",
}
_BLOCK_17 = {
    "branch1x1": "conv",
    "branch7x7_1": "tower.conv",
    "branch7x7_2": "tower.conv_1",
    "branch7x7_3": "tower.conv_2",
    "branch7x7dbl_1": "tower_1.conv",
    "branch7x7dbl_2": "tower_1.conv_1",
    "branch7x7dbl_3": "tower_1.conv_2",
    "branch7x7dbl_4": "tower_1.conv_3",
    "branch7x7dbl_5": "tower_1.conv_4",
    "branch_pool": "tower_2.conv",
}
_BLOCK_8 = {
    "branch1x1": "conv",
    "branch3x3_1": "tower.conv",
    "branch3x3_2a": "tower.mixed.conv",
    "branch3x3_2b": "tower.mixed.conv_1",
    "branch3x3dbl_1": "tower_1.conv",
    "branch3x3dbl_2": "tower_1.conv_1",
    "branch3x3dbl_3a": "tower_1.mixed.conv",
    "branch3x3dbl_3b": "tower_1.mixed.conv_1",
    "branch_pool": "tower_2.conv",
}
_STEM = {
    "Conv2d_1a_3x3": "conv",
    "Conv2d_2a_3x3": "conv_1",
    "Conv2d_2b_3x3": "conv_2",
    "Conv2d_3b_1x1": "conv_3",
    "Conv2d_4a_3x3": "conv_4",
}
_BLOCKS = {
    "Mixed_5b": ("mixed", _BLOCK_35),
    "Mixed_5c": ("mixed_1", _BLOCK_35),
    "Mixed_5d": ("mixed_2", _BLOCK_35),
    "Mixed_6a": (
        "mixed_3",
        {
            "branch3x3": "conv",
            "branch3x3dbl_1": "tower.conv",
            "branch3x3dbl_2": "tower.conv_1",
            "branch3x3dbl_3": "tower.conv_2",
        },
    ),
    "Mixed_6b": ("mixed_4", _BLOCK_17),
    "Mixed_6c": ("mixed_5", _BLOCK_17),
    "Mixed_6d": ("mixed_6", _BLOCK_17),
    "Mixed_6e": ("mixed_7", _BLOCK_17),
    "Mixed_7a": (
        "mixed_8",
        {
            "branch3x3_1": "tower.conv",
            "branch3x3_2": "tower.conv_1",
            "branch7x7x3_1": "tower_1.conv",
            "branch7x7x3_2": "tower_1.conv_1",
            "branch7x7x3_3": "tower_1.conv_2",
            "branch7x7x3_4": "tower_1.conv_3",
        },
    ),
    "Mixed_7b": ("mixed_9", _BLOCK_8),
    "Mixed_7c": ("mixed_10", _BLOCK_8),
}
_LEAVES = {"conv.weight": "weight", "bn.bias": "beta", "bn.running_mean": "mean", "bn.running_var": "var"}


def weights_of_openai() -> dict[str, Tensor]:
    """The same numbers, without trained gamma, in OpenAI's layout."""
    weights = formula_weights(trained_gamma=False)
    scopes = dict(_STEM)
    for block, (mixed, branches) in _BLOCKS.items():
        scopes |= {f"{block}.{name}": f"{mixed}.{scope}" for name, scope in branches.items()}
    layers = {
        f"layers.{scope}.{theirs}": weights[f"{name}.{ours}"]
        for name, scope in scopes.items()
        for ours, theirs in _LEAVES.items()
    }
    return layers | {"output.weight": weights["fc.weight"], "output.bias": weights["fc.bias"]}
